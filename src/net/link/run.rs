//! Other programs: what they are told, and what they say when they fail.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use super::error::LinkError;

/// Runs `program`, with `input` on its standard input, on a blocking thread.
pub(super) async fn run(
    program: &'static str,
    doing: &'static str,
    arguments: Vec<String>,
    input: String,
) -> Result<(), LinkError> {
    let failed = |message: String| LinkError::Program { program, message };
    let ran = tokio::task::spawn_blocking(move || {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(input.as_bytes()) {
                // It ended without reading: its exit status says more.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        child.wait_with_output()
    });
    match ran.await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let line = said.lines().find(|line| !line.trim().is_empty());
            match line {
                Some(line) if line.contains("Operation not permitted") => {
                    Err(LinkError::Privilege {
                        doing: format!("{doing} with {program}"),
                        capability: "CAP_NET_ADMIN",
                    })
                }
                Some(line) => Err(failed(line.trim().to_owned())),
                None => Err(failed(output.status.to_string())),
            }
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            Err(LinkError::NoProgram { program, doing })
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("it was not waited for".to_owned())),
    }
}
