//! The only door outside: the one place that starts processes, reads the clock, takes locks and
//! knows paths. Everything here has a deadline or cannot block.

mod cancel;
mod clock;
mod dirs;
mod lock;
mod process;
mod program;

pub use cancel::Cancel;
pub use clock::{Timestamp, now, pause};
pub use dirs::{Dirs, Mode};
pub use lock::{Lock, LockError};
pub use process::{Child, ExitStatus, Handle, Spawn, exec, inherited_pipe};
pub use program::{Output, Program, ProgramError, find_program};
