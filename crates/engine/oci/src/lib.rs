//! The OCI runtime command line on the set-up of our own containers.
