//! What the console asks of the physical UART.

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Off.
    Off,
    /// On.
    On,
}

/// A UART that never makes its caller wait. It is set up and its baud rate is
/// right. Copies of it drive the same registers: a crash uses one while the
/// console's own may be anywhere.
pub trait Port: Clone {
    /// Sends `byte`, or says that there is no room for it now.
    fn try_put(&mut self, byte: u8) -> bool;

    /// A byte that was received, if any.
    fn try_get(&mut self) -> Option<u8>;

    /// Whether to interrupt while there is room to send.
    fn set_transmit_interrupt(&mut self, switch: Switch);
}
