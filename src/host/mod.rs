//! The only door outside: the one place that starts processes, reads the clock, takes locks and
//! knows paths. Everything here has a deadline or cannot block.

mod access;
mod cancel;
mod clock;
mod dirs;
mod facts;
mod folder;
mod gate;
mod image_file;
mod landlock;
mod link;
mod lock;
mod log_file;
mod new_file;
mod process;
mod program;
mod progress;
mod small_file;
mod tap;
mod user;
mod writeback;

pub use access::{Access, Denied, may_access};
pub use cancel::Cancel;
pub use clock::{Timestamp, now, pause};
pub use dirs::{Dirs, Mode};
pub use facts::memory_size;
pub use folder::{give_folder, hand_over, let_through, make_private, shut_out};
pub use gate::{Gate, Gated, Runner, pass_gate};
pub use image_file::{free_space, open_image};
pub use landlock::landlock_version;
pub use link::NetDevice;
pub use lock::{Lock, LockError};
pub use log_file::open_log;
pub use new_file::NewFile;
pub use process::{Child, ExitStatus, Handle, Spawn, exec, inherited_pipe, keep_private, leave_terminal};
pub use program::{Output, Program, ProgramError, find_program};
pub use progress::{Progress, Quiet};
pub use small_file::read_small;
pub use tap::{TapError, open_tap};
pub use user::{User, caller};
pub use writeback::start_writeback;
