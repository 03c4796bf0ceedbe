//! firewalld drops what no zone of its own lets through. It has an interface for us: our device goes
//! into its zone `trusted`, until its next start or ours to take it out; our own table still says
//! who reaches whom.

use crate::error::{OrFailed, Result};
use crate::host::{Output, Program, ProgramError};
use crate::spec::NetworkSpec;

const ZONE: &str = "trusted";

/// Lets the host's firewalld trust the network's device. The zone it was put in, to be given to
/// [`dismiss`] later; `None`: no firewalld runs, or its owner has put the device into a zone.
pub fn admit(network: &NetworkSpec) -> Result<Option<String>> {
    if network.host.is_none() || !is_running()? {
        return Ok(None);
    }
    let device = network.device();
    let failed = || format!("cannot make firewalld trust `{device}`");
    if let Some(zone) = zone_of(&device, &[]).or_failed(failed)? {
        // Put there by an earlier life that was killed before it noted that.
        let ours = zone == ZONE && zone_of(&device, &["--permanent"]).or_failed(failed)?.is_none();
        return Ok(ours.then_some(zone));
    }
    run(&[&format!("--zone={ZONE}"), &format!("--add-interface={device}")]).or_failed(failed)?;
    Ok(Some(ZONE.to_owned()))
}

/// Takes it out of the zone again; done when it is not in there, or firewalld is gone.
pub fn dismiss(network: &NetworkSpec, zone: &str) -> Result<()> {
    if !is_running()? {
        return Ok(());
    }
    let device = network.device();
    let failed = || format!("cannot take `{device}` out of the zone `{zone}` of firewalld");
    if zone_of(&device, &[]).or_failed(failed)?.as_deref() != Some(zone) {
        return Ok(());
    }
    run(&[&format!("--zone={zone}"), &format!("--remove-interface={device}")]).or_failed(failed)?;
    Ok(())
}

fn is_running() -> Result<bool> {
    match run(&["--state"]) {
        Ok(_) => Ok(true),
        // Not running, or nobody whom it answers.
        Err(ProgramError::Missing { .. } | ProgramError::Failed { .. }) => Ok(false),
        Err(error) => Err(error).or_failed(|| "cannot see whether firewalld runs".to_owned()),
    }
}

fn zone_of(device: &str, more: &[&str]) -> Result<Option<String>, ProgramError> {
    const NO_ZONE: i32 = 2;
    let question = format!("--get-zone-of-interface={device}");
    let mut args = more.to_vec();
    args.push(&question);
    match run(&args) {
        Ok(output) => Ok(Some(output.text().trim().to_owned()).filter(|zone| !zone.is_empty())),
        Err(ProgramError::Failed { code: Some(NO_ZONE), .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn run(args: &[&str]) -> Result<Output, ProgramError> {
    tracing::debug!(?args, "firewall-cmd");
    Program::new("firewall-cmd").args(args).run()
}
