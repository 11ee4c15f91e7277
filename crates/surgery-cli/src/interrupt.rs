//! Ctrl-C and SIGTERM: the first signal asks the run to stop at a point where it can be resumed, the second ends the
//! process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown};

use crate::exit::Exit;

/// Whether a signal arrived; set up by [`watch`].
static RECEIVED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Starts to catch signals: the first one only sets the flag.
pub fn watch() {
    RECEIVED.get_or_init(|| {
        let came = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The order matters: at the first signal the flag is still false, so the first handler does nothing and
            // the second sets it. If registration fails, the first signal ends the process, which is the default.
            let shutdown = register_conditional_shutdown(signal, Exit::Interrupted as i32, came.clone());
            let _ = shutdown.and_then(|_| register(signal, came.clone()));
        }
        came
    });
}

/// Whether a signal arrived since [`watch`].
pub fn came() -> bool {
    RECEIVED.get().is_some_and(|came| came.load(Ordering::Relaxed))
}
