//! Ctrl-C and SIGTERM: the first asks the work to stop where it can go on later, the second ends the process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown};

use crate::exit::Exit;

/// Whether a signal came; there once someone watches.
static CAME: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on the first signal is only noted.
pub fn watch() {
    CAME.get_or_init(|| {
        let came = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag down, passes, and raises it. A system that will not
            // have them ends the process at the first signal, as it does by default.
            let shutdown = register_conditional_shutdown(signal, Exit::Interrupted as i32, came.clone());
            let _ = shutdown.and_then(|_| register(signal, came.clone()));
        }
        came
    });
}

/// Whether a signal came since [`watch`].
pub fn came() -> bool {
    CAME.get().is_some_and(|came| came.load(Ordering::Relaxed))
}
