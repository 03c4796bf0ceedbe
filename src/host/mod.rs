//! The only door outside: the one place that starts processes, reads the clock, takes locks and
//! knows paths. Everything here has a deadline or cannot block.

mod cancel;
mod clock;
mod descriptors;
mod dirs;
mod facts;
mod image_file;
mod link;
mod lock;
mod new_file;
mod process;
mod program;
mod progress;
mod tap;
mod user;
mod writeback;

pub use cancel::Cancel;
pub use clock::{Timestamp, now, pause};
pub use descriptors::{connection_on_stdin, is_plain, memory_file, peer_uid, receive_with, send_with};
pub use dirs::{Dirs, Mode};
pub use facts::memory_size;
pub use image_file::{free_space, open_image};
pub use link::NetDevice;
pub use lock::{Lock, LockError};
pub use new_file::NewFile;
pub use process::{
    Child, ExitStatus, Handle, Spawn, as_a_servant, exec, inherited_file, inherited_pipe, leave_terminal,
};
pub use program::{Output, Program, ProgramError, find_program};
pub use progress::{Progress, Quiet};
pub use tap::{TapError, open_tap};
pub use user::{User, caller, group, on_behalf_of};
pub use writeback::start_writeback;
