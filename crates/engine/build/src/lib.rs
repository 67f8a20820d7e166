//! Builds images from Dockerfiles: parsing, the cache, the steps, what is printed.
