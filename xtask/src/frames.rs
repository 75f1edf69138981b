//! Separating log frames from console text on the one serial line.
//!
//! Main type: [`Splitter`]. The protocol: byte 0xFF begins a log frame, byte 0x00 ends it; between them is one frame
//! encoded by rzCOBS, which never contains 0x00. The pair 0xFF 0x00 stands for a literal 0xFF that a guest printed. A
//! frame of more than [`LONGEST_FRAME`] bytes is none: it is shown as text and reading goes on behind it, so that a
//! sender that died inside a frame loses a few characters and not the crash report behind them.

/// Bytes between the two marks.
pub(crate) const LONGEST_FRAME: usize = 512;

const BEGIN: u8 = 0xff;
const END: u8 = 0x00;

/// What the line carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Console output.
    Text(Vec<u8>),
    /// One encoded log frame without its marks.
    Frame(Vec<u8>),
}

/// Takes bytes as they arrive, cut anywhere.
#[derive(Default)]
pub(crate) struct Splitter {
    text: Vec<u8>,
    frame: Option<Vec<u8>>,
}

impl Splitter {
    /// Takes `bytes` and returns what is complete: frames, and all text so far.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for &byte in bytes {
            self.take(byte, &mut pieces);
        }
        self.flush_text(&mut pieces);
        pieces
    }

    /// The line has ended; what looked like the beginning of a frame is shown as it is.
    pub(crate) fn end(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        self.give_up_frame();
        self.flush_text(&mut pieces);
        pieces
    }

    fn take(&mut self, byte: u8, pieces: &mut Vec<Piece>) {
        match (&mut self.frame, byte) {
            (None, BEGIN) => self.frame = Some(Vec::new()),
            (None, _) => self.text.push(byte),
            (Some(frame), END) => {
                let frame = std::mem::take(frame);
                self.frame = None;
                if frame.is_empty() {
                    self.text.push(BEGIN);
                } else {
                    self.flush_text(pieces);
                    pieces.push(Piece::Frame(frame));
                }
            }
            (Some(frame), _) => {
                frame.push(byte);
                if frame.len() > LONGEST_FRAME {
                    self.give_up_frame();
                }
            }
        }
    }

    fn give_up_frame(&mut self) {
        if let Some(frame) = self.frame.take() {
            self.text.push(BEGIN);
            self.text.extend(frame);
        }
    }

    fn flush_text(&mut self, pieces: &mut Vec<Piece>) {
        if !self.text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut self.text)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_FRAME, Piece, Splitter};

    fn text(bytes: &[u8]) -> Piece {
        Piece::Text(bytes.to_vec())
    }

    #[test]
    fn frame_between_texts_is_separated() {
        let pieces = Splitter::default().feed(b"one\xff\x11\x22\x00two");
        assert_eq!(pieces, [text(b"one"), Piece::Frame(vec![0x11, 0x22]), text(b"two")]);
    }

    #[test]
    fn frame_cut_at_every_byte_is_put_together() {
        let mut splitter = Splitter::default();
        let pieces: Vec<Piece> =
            b"\xff\x11\x22\x00".iter().flat_map(|&byte| splitter.feed(&[byte])).collect();
        assert_eq!(pieces, [Piece::Frame(vec![0x11, 0x22])]);
    }

    #[test]
    fn empty_frame_is_a_literal_byte() {
        assert_eq!(Splitter::default().feed(b"a\xff\x00b"), [text(b"a\xffb")]);
    }

    #[test]
    fn begin_mark_inside_a_frame_belongs_to_it() {
        assert_eq!(Splitter::default().feed(b"\xff\xff\x01\x00"), [Piece::Frame(vec![0xff, 0x01])]);
    }

    #[test]
    fn endless_frame_becomes_text_and_reading_goes_on() {
        let mut bytes = vec![0xff];
        bytes.extend([b'x'; LONGEST_FRAME + 1]);
        bytes.extend(b"\xff\x11\x00");
        let pieces = Splitter::default().feed(&bytes);
        assert_eq!(pieces, [text(&bytes[..LONGEST_FRAME + 2]), Piece::Frame(vec![0x11])]);
    }

    #[test]
    fn frame_cut_off_by_the_end_becomes_text() {
        let mut splitter = Splitter::default();
        assert!(splitter.feed(b"\xffCRASH").is_empty());
        assert_eq!(splitter.end(), [text(b"\xffCRASH")]);
    }
}
