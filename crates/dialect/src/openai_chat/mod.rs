//! OpenAI's chat completions: reading what a request asks for without taking it
//! apart, and reading what an answer says while its bytes pass by.

mod answer;
mod error;
mod judge;
mod request;
mod splice;

pub use answer::{Answer, Chunk, END_MARKER, Finish, read_answer, read_chunk};
pub use error::{render_error, render_stream_error};
pub use judge::{Flaw, Form, Head, Heard, Opening};
pub use request::{ChatRequest, Rewrite};
pub use splice::{Parted, Splice, Told};
