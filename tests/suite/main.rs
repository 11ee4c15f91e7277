//! Tests of the library on the CPU.

mod chat;
mod checkpoint;
mod evaluation;
mod kernels;
mod model;
mod objectives;
mod parity;
mod reference;
mod replay;
mod tokenizers;
mod training;
