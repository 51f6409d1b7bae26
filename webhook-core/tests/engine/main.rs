//! The engine end to end: memory store, real sockets.

mod delivery;
mod receiver;
