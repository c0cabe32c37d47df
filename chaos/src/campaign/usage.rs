//! What a campaign cannot be held with, found before anything starts: a binary that is not there, or
//! a mistake that it would not make.
//!
//! Whether a binary makes mistakes is asked of itself. One that knows of them refuses a name that no
//! mistake has; the product does not look at the variable, and a campaign would pass with nothing planted.

use std::{
    ffi::OsStr,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{io::AsyncReadExt as _, process::Command, time::timeout};

use super::{CampaignArgs, PLANTED, REFUSED, stage};

/// No mistake has this name.
const NO_NAME: &str = "?";
/// A binary says its version within this, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is read of what it says meanwhile.
const SAID_BYTES_MAX: u64 = 64 << 10;

/// Whether this can be held.
///
/// # Errors
/// Why not: wrong usage.
pub(super) async fn check(args: &CampaignArgs, planted: Option<&OsStr>) -> anyhow::Result<()> {
    let given = args.medic.as_deref();
    let medic =
        if args.healing.healing { crate::healing::medic(given) } else { stage::medic(given) };
    match (args.dry_run, given) {
        // Starts nothing.
        (true, None) => Ok(()),
        (true, Some(_)) => present(&medic),
        (false, _) => {
            present(&medic)?;
            binary(&medic, planted).await
        }
    }
}

fn present(medic: &Path) -> anyhow::Result<()> {
    if !medic.is_file() {
        bail!("{} is missing: `make build` builds it", medic.display());
    }
    Ok(())
}

/// Whether a binary runs, and makes the mistake that is asked for.
async fn binary(medic: &Path, planted: Option<&OsStr>) -> anyhow::Result<()> {
    let name = medic.display();
    let Some(planted) = planted else {
        let (status, said) = ask(medic, None).await?;
        if !status.success() {
            bail!("`{name} version` fails ({status}): {said}");
        }
        return Ok(());
    };
    let asked = planted.to_string_lossy();
    let (status, said) = ask(medic, Some(NO_NAME)).await?;
    if status.code() != Some(i32::from(REFUSED)) || !said.starts_with(PLANTED) {
        bail!(
            "{PLANTED}={asked}: {name} makes no mistakes; only the binary of the tests does \
             (--medic …/medic-under-test)"
        );
    }
    let (status, said) = ask(medic, Some(&asked)).await?;
    if !status.success() {
        bail!("{said}");
    }
    Ok(())
}

/// How a binary ends that is to say its version with this mistake planted, and its complaint.
async fn ask(medic: &Path, planted: Option<&str>) -> anyhow::Result<(ExitStatus, String)> {
    let mut command = Command::new(medic);
    command
        .arg("version")
        .env_remove(PLANTED)
        .envs(planted.map(|name| (PLANTED, name)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let name = medic.display();
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    let stderr = child.stderr.take().context("it has no stderr")?;
    let ended = async {
        let mut said = Vec::new();
        stderr.take(SAID_BYTES_MAX).read_to_end(&mut said).await?;
        Ok::<_, std::io::Error>((child.wait().await?, said))
    };
    let ended = timeout(PATIENCE, ended).await;
    let (status, said) =
        ended.with_context(|| format!("`{name} version` does not end"))?.context("asking it")?;
    Ok((status, String::from_utf8_lossy(&said).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// What it is refused with; empty: it is not.
    async fn refused(medic: &Path, planted: Option<&str>) -> String {
        let checked = match present(medic) {
            Ok(()) => binary(medic, planted.map(OsStr::new)).await,
            missing => missing,
        };
        checked.err().map(|error| format!("{error:#}")).unwrap_or_default()
    }

    #[tokio::test]
    async fn a_binary_must_be_there_and_run() {
        assert_eq!(refused(Path::new("/bin/true"), None).await, "");
        for (wrong, why) in [
            ("/nope", "/nope is missing"),
            ("/", "/ is missing"),
            ("/proc/self/status", "starting /proc/self/status: "),
            ("/bin/false", "`/bin/false version` fails"),
        ] {
            let told = refused(Path::new(wrong), None).await;
            assert!(told.starts_with(why), "{wrong}: {told}");
        }
    }

    #[tokio::test]
    async fn nothing_is_planted_in_a_binary_that_makes_no_mistakes() {
        for name in ["AgentForgetsKeys", "Nope", "", NO_NAME] {
            let told = refused(Path::new("/bin/true"), Some(name)).await;
            assert!(told.contains("/bin/true makes no mistakes"), "{name}: {told}");
        }
        // One that fails for a reason of its own does not know of them either.
        let told = refused(Path::new("/bin/false"), Some("AgentForgetsKeys")).await;
        assert!(told.contains("makes no mistakes"), "{told}");
    }

    #[tokio::test]
    async fn a_binary_of_the_tests_is_asked_whether_it_knows_the_mistake() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let medic = dir.path().join("medic-under-test");
        let text = "#!/bin/sh\n[ \"$MEDIC_PLANTED\" = AgentForgetsKeys ] && exit 0\n\
                    echo \"MEDIC_PLANTED: there is no $MEDIC_PLANTED\" >&2; exit 2\n";
        std::fs::write(&medic, text)?;
        std::fs::set_permissions(&medic, std::fs::Permissions::from_mode(0o700))?;
        assert_eq!(refused(&medic, Some("AgentForgetsKeys")).await, "");
        let told = refused(&medic, Some("Nope")).await;
        assert_eq!(told, "MEDIC_PLANTED: there is no Nope");
        Ok(())
    }
}
