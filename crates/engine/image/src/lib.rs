//! Stores images: blobs by digest, archives in and out, unpacked layers.
