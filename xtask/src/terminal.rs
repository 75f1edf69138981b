//! The person's terminal as a guest's console: every key goes through, and the terminal is always given back.
//!
//! Main type: [`Raw`]. The settings are restored when it is dropped (also by a panic) and when we are told to end by a
//! signal.

use std::io::{IsTerminal as _, stdin};
use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use rustix::termios::{self, OptionalActions, Termios};

static ORIGINAL: OnceLock<Termios> = OnceLock::new();

/// The terminal passes on every key as it is typed, until this is dropped.
pub(crate) struct Raw;

impl Raw {
    /// Switches the terminal over; does nothing when the input is a file or a pipe.
    pub(crate) fn enter() -> Result<Option<Self>> {
        if !stdin().is_terminal() {
            return Ok(None);
        }
        let original = termios::tcgetattr(stdin()).context("cannot read the terminal's settings")?;
        let mut raw = original.clone();
        raw.make_raw();
        if ORIGINAL.set(original).is_ok() {
            ctrlc::set_handler(|| {
                restore();
                std::process::exit(130);
            })?;
        }
        termios::tcsetattr(stdin(), OptionalActions::Now, &raw)
            .context("cannot change the terminal's settings")?;
        Ok(Some(Self))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Some(original) = ORIGINAL.get() {
        // There is nobody left to tell, and nothing else to try.
        let _ = termios::tcsetattr(stdin(), OptionalActions::Now, original);
    }
}
