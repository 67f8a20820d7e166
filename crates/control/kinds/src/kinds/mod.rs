//! One file for each kind (or a tight family of kinds): its defaults, validation and columns.
