//! Other API servers behind this one: APIServices, whether they are available, and the way to them.
