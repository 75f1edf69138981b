//! Stand-in until the logger lands.
macro_rules! log_nothing { ($($t:tt)*) => { if false { let _ = format_args!($($t)*); } } }
pub(crate) use {log_nothing as debug, log_nothing as warn};
