//! The only door outside: the one place that starts processes, reads the clock, takes locks and
//! knows paths. Everything here has a deadline or cannot block.

mod access;
mod cancel;
mod clock;
mod descriptors;
mod dirs;
mod facts;
#[cfg(feature = "failpoints")]
mod failpoint;
mod folder;
mod folder_lock;
mod gate;
mod image_file;
mod landlock;
mod link;
mod listeners;
mod lock;
mod log_file;
mod new_file;
mod notify;
mod oom;
mod process;
mod program;
mod progress;
mod small_file;
mod sockets;
mod reader;
mod tap;
mod unix_sockets;
mod units;
mod user;
mod vsock;
mod writeback;

pub use access::{Access, Denied, may_access};
pub use cancel::Cancel;
pub use clock::{Timestamp, now, pause};
pub use descriptors::{connection_on_stdin, is_plain, memory_file, peer_uid, receive_with, send_with};
pub use dirs::{Dirs, Mode};
pub use facts::{check_descriptors, descriptor_limit, memory_size};
#[cfg(feature = "failpoints")]
pub use failpoint::failpoint;
pub use folder::{give_folder, hand_over, let_through, make_private, shut_out};
pub use folder_lock::lock_folder;
pub use gate::{Gate, Gated, Runner, pass_gate};
pub use image_file::{free_space, open_image};
pub use landlock::landlock_version;
pub use link::NetDevice;
pub use listeners::listener;
pub use lock::{Lock, LockError};
pub use log_file::open_log;
pub use new_file::NewFile;
pub use notify::{is_unit, serve_manager, tell_manager};
pub use oom::OomWatch;
pub use process::{
    Child, ExitStatus, Handle, Spawn, as_a_servant, exec, ignore_hangup, inherited_file, inherited_pipe,
    is_own_program, keep_private, leave_terminal, own_program,
};
pub use program::{Output, Program, ProgramError, find_program};
pub use progress::{Progress, Quiet};
pub use reader::closed_within;
pub use small_file::read_small;
pub use sockets::{Claim, bound_sockets};
pub use tap::{TapError, open_tap};
pub use units::{Activity, NETWORK_UNIT, ServiceManager, Unit};
pub use unix_sockets::{Server, server_state};
pub use user::{User, actor, caller, group, on_behalf_of};
pub use vsock::{connect_vsock, open_vhost_vsock};
pub use writeback::start_writeback;
