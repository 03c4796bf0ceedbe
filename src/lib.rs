//! Virshle turns a template in a TOML file into a running, reachable virtual machine.
//!
//! The modules in reading order are the flow: what a VM may be, then what runs.
//!
//! ```text
//! template ──► vm ──► disk ──► network ──► hypervisor
//!                │       each through host/, the only door outside
//!                ▼
//!              store ◄── supervisor (one process per running VM) ◄── cli
//! ```
//!
//! # Who may use whom
//!
//! `error` and `spec` are plain data, open to all. A test reads the `use crate::…` lines and fails
//! on an edge that is not in this table.
//!
//! | part         | may use                                                        |
//! |--------------|----------------------------------------------------------------|
//! | `error`      |                                                                |
//! | `spec`       | error                                                          |
//! | `host`       | error                                                          |
//! | `config`     | spec                                                           |
//! | `template`   | spec, config                                                   |
//! | `image`      | spec, host, config                                             |
//! | `disk`       | spec, host, template                                           |
//! | `network`    | spec, host                                                     |
//! | `hypervisor` | spec, host                                                     |
//! | `store`      | spec, host                                                     |
//! | `vm`         | spec, host, config, template, image, disk, network, hypervisor, store |
//! | `supervisor` | spec, host, config, network, hypervisor, store, vm             |
//! | `plan`       | spec, host, config, template, hypervisor, store, vm            |
//! | `relay`      | spec, host, vm                                                 |
//! | `cli`        | spec, host, config, template, image, network, hypervisor, store, vm, plan, supervisor, relay |
//!
//! Only `store` has SQL, only `host` starts processes or reads the clock, only `cli` prints.

pub mod error;
pub mod spec;
pub mod host;

pub mod config;
pub mod template;
pub mod image;
pub mod disk;
pub mod network;
pub mod hypervisor;
pub mod store;
pub mod vm;
pub mod supervisor;
pub mod plan;
pub mod relay;
pub mod cli;
