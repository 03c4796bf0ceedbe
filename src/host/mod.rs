//! The only door outside: the one place that starts processes, reads the clock, takes locks and
//! knows paths. Everything here has a deadline or cannot block.

mod cancel;
mod clock;
mod dirs;
mod facts;
#[cfg(feature = "failpoints")]
mod failpoint;
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
pub use dirs::{Dirs, Mode};
pub use facts::memory_size;
#[cfg(feature = "failpoints")]
pub use failpoint::failpoint;
pub use image_file::{free_space, open_image};
pub use link::NetDevice;
pub use lock::{Lock, LockError};
pub use new_file::NewFile;
pub use process::{Child, ExitStatus, Handle, Spawn, exec, inherited_pipe, leave_terminal};
pub use program::{Output, Program, ProgramError, find_program};
pub use progress::{Progress, Quiet};
pub use tap::{TapError, open_tap};
pub use user::{User, caller};
pub use writeback::start_writeback;
