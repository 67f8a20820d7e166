//! Carries the small binaries that pintle brings with it: shim, pause and hello.
