//! What is loaded where, and what isn't loaded at all.

use super::*;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

/// An arm64 Image of 4 KiB that uses `image_size` bytes.
fn linux(text_offset: u64, image_size: u64) -> Vec<u8> {
    let mut image = vec![0; 4096];
    // `ccmp x18, #0, #0xd, pl`: "MZ", as the EFI stub has it.
    image[..4].copy_from_slice(&[0x4D, 0x5A, 0x40, 0xFA]);
    image[0x08..0x10].copy_from_slice(&text_offset.to_le_bytes());
    image[0x10..0x18].copy_from_slice(&image_size.to_le_bytes());
    image[0x38..0x3C].copy_from_slice(b"ARM\x64");
    image
}

/// A segment of an ELF file: virtual and physical address, bytes in the file, in memory.
#[derive(Clone, Copy, Debug)]
struct Load(u64, u64, u64, u64);

/// An ELF file for AArch64 with `entry` and `segments`, whose bytes start at 0x1000.
fn elf(entry: u64, segments: &[Load]) -> Vec<u8> {
    let mut file = vec![];
    file.extend_from_slice(b"\x7FELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend_from_slice(&[2, 0, 183, 0, 1, 0, 0, 0]);
    file.extend_from_slice(&entry.to_le_bytes());
    file.extend_from_slice(&64_u64.to_le_bytes());
    file.extend_from_slice(&0_u64.to_le_bytes());
    file.extend_from_slice(&[
        0,
        0,
        0,
        0,
        64,
        0,
        56,
        0,
        u8::try_from(segments.len()).unwrap(),
        0,
        64,
        0,
        0,
        0,
        0,
        0,
    ]);
    for &Load(virtual_address, physical_address, in_file, in_memory) in segments {
        file.extend_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0]);
        for field in [0x1000, virtual_address, physical_address, in_file, in_memory, 0x1000] {
            file.extend_from_slice(&field.to_le_bytes());
        }
    }
    file.resize(0x2000, 0xAA);
    file
}

fn refusal(kernel: &[u8]) -> ImageError {
    plan(kernel, None, 64 * MIB).unwrap_err()
}

/// Everything a plan uses, device tree included.
fn ranges(plan: &LoadPlan<'_>) -> Vec<Range<u64>> {
    let mut ranges: Vec<_> = plan.pieces().map(Segment::range).collect();
    ranges.push(plan.dtb..plan.dtb + DTB_MAX);
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    ranges
}

/// Checks what every plan promises.
fn assert_sound(plan: &LoadPlan<'_>, memory: u64) {
    let ranges = ranges(plan);
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "overlap: {ranges:x?}");
    assert!(ranges[0].start >= RAM_BASE, "below RAM: {ranges:x?}");
    assert!(ranges.last().unwrap().end <= RAM_BASE + memory, "beyond RAM: {ranges:x?}");
    assert_eq!(plan.dtb % DTB_MAX, 0);
}

mod places {
    use super::*;

    #[test]
    fn linux_image_is_where_qemu_puts_it() {
        let (kernel, initrd) = (linux(0, 30 * MIB), vec![0; 5000]);
        let plan = plan(&kernel, Some(&initrd), 512 * MIB).unwrap();
        assert_eq!((plan.format, plan.entry, plan.dtb), (Format::Image, 0x4020_0000, 0x4000_0000));
        assert_eq!(plan.segments[0], Segment { ipa: 0x4020_0000, data: &kernel, zeroes: 0 });
        assert_eq!(plan.initrd.unwrap().range(), 0x4800_0000..0x4800_1388);
    }

    #[test]
    fn text_offset_is_kept() {
        assert_eq!(plan(&linux(0x8_0000, MIB), None, 64 * MIB).unwrap().entry, 0x4008_0000);
    }

    #[test]
    fn image_without_size_is_from_before_text_offset_was_reliable() {
        assert_eq!(plan(&linux(0, 0), None, 64 * MIB).unwrap().entry, 0x4008_0000);
    }

    #[test]
    fn initrd_stays_clear_of_the_bss() {
        let kernel = linux(0, 40 * MIB);
        let plan = plan(&kernel, Some(&[1; 100]), 64 * MIB).unwrap();
        assert_eq!(plan.initrd.unwrap().ipa, RAM_BASE + 42 * MIB);
    }

    #[test]
    fn large_initrd_moves_down_from_the_middle() {
        let initrd = vec![0; 40 << 20];
        let kernel = linux(0, 10 * MIB);
        let plan = plan(&kernel, Some(&initrd), 64 * MIB).unwrap();
        assert_eq!(plan.initrd.unwrap().ipa, RAM_BASE + 24 * MIB);
        assert_sound(&plan, 64 * MIB);
    }

    #[test]
    fn raw_binary_is_where_qemu_puts_it() {
        let plan = plan(&[0x14; 8], None, 2 * MIB).unwrap();
        assert_eq!((plan.format, plan.entry, plan.dtb), (Format::Raw, 0x4008_0000, 0x4000_0000));
    }

    #[test]
    fn elf_segments_go_to_their_physical_addresses() {
        let file = elf(
            0xFFFF_0000_4020_0004,
            &[
                Load(0xFFFF_0000_4010_0000, 0x4010_0000, 0x800, 0x800),
                Load(0xFFFF_0000_4020_0000, 0x4030_0000, 0x10, 0x3000),
            ],
        );
        let plan = plan(&file, None, 64 * MIB).unwrap();
        assert_eq!((plan.format, plan.entry), (Format::Elf, 0x4030_0004));
        assert_eq!(plan.segments[0], Segment { ipa: 0x4010_0000, data: &file[0x1000..0x1800], zeroes: 0 });
        assert_eq!(
            plan.segments[1],
            Segment { ipa: 0x4030_0000, data: &file[0x1000..0x1010], zeroes: 0x2FF0 }
        );
    }

    #[test]
    fn elf_may_name_its_entry_by_physical_address() {
        let file = elf(0x4010_0008, &[Load(0xFFFF_0000_0000_0000, 0x4010_0000, 0x800, 0x800)]);
        assert_eq!(plan(&file, None, 64 * MIB).unwrap().entry, 0x4010_0008);
    }

    #[test]
    fn elf_segment_without_memory_is_skipped() {
        let file = elf(0x4010_0000, &[Load(0, 0, 0, 0), Load(0x4010_0000, 0x4010_0000, 16, 16)]);
        assert_eq!(plan(&file, None, 64 * MIB).unwrap().segments.len(), 1);
    }

    #[test]
    fn initrd_at_the_end_leaves_room_for_the_device_tree() {
        let file = elf(0x4000_0000, &[Load(0x4000_0000, 0x4000_0000, 0x1000, 0x1000)]);
        let initrd = vec![0; 0x13_0000];
        let plan = plan(&file, Some(&initrd), 2 * MIB).unwrap();
        assert_eq!(plan.dtb, RAM_BASE + 2 * MIB - DTB_MAX);
        assert_sound(&plan, 2 * MIB);
    }

    #[test]
    fn device_tree_makes_way_for_a_kernel_at_the_start_of_ram() {
        let file = elf(0x4000_0000, &[Load(0x4000_0000, 0x4000_0000, 0x1000, 0x8_0000)]);
        let initrd = [7; 5000];
        let plan = plan(&file, Some(&initrd), 2 * MIB).unwrap();
        assert_eq!(plan.initrd.unwrap().ipa, RAM_BASE + MIB);
        assert_eq!(plan.dtb, RAM_BASE + MIB + DTB_MAX);
        assert_sound(&plan, 2 * MIB);
    }
}

mod refusals {
    use super::*;

    #[test]
    fn text_offset_of_2_mib_or_more() {
        assert_eq!(refusal(&linux(2 * MIB, MIB)), ImageError::TextOffset { text_offset: 2 * MIB });
    }

    #[test]
    fn program_headers_of_another_size() {
        let mut file = elf(0x4010_0000, &[Load(0x4010_0000, 0x4010_0000, 16, 16)]);
        file[54] = 32;
        assert_eq!(elf_fault(&file), ElfFault::Damaged);
    }

    #[test]
    fn kernel_larger_than_ram() {
        let error = plan(&linux(0, 63 * MIB), None, 64 * MIB).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the kernel with its bss needs RAM up to 0x44100000, which ends at 0x44000000: raise `memory` to \"66M\""
        );
    }

    #[test]
    fn elf_outside_ram() {
        let error = refusal(&elf(0x8000, &[Load(0x8000, 0x8000, 16, 16)]));
        assert!(
            error.to_string().starts_with("the kernel is linked for 0x8000, RAM is 0x40000000..0x44000000"),
            "{error}"
        );
    }

    #[test]
    fn suggested_memory_is_enough() {
        let (kernel, initrd) = (linux(0, 3 * MIB), vec![0; 5 << 20]);
        let Err(ImageError::InitrdTooLarge { needed, .. }) = plan(&kernel, Some(&initrd), 8 * MIB) else {
            panic!("fits");
        };
        assert!(plan(&kernel, Some(&initrd), needed.next_multiple_of(2 * MIB)).is_ok());
    }

    #[test]
    fn compressed_kernels_by_name() {
        for (start, compression) in [
            (&[0x1F, 0x8B, 8, 0][..], Compression::Gzip),
            (b"\xFD7zXZ\0", Compression::Xz),
            (&[0x28, 0xB5, 0x2F, 0xFD], Compression::Zstd),
            (&[0x02, 0x21, 0x4C, 0x18], Compression::Lz4),
            (&[0x04, 0x22, 0x4D, 0x18], Compression::Lz4),
            (b"BZh9", Compression::Bzip2),
            (b"\x5D\0\0\x80\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0", Compression::Lzma),
        ] {
            assert_eq!(refusal(start), ImageError::Compressed(compression));
        }
    }

    #[test]
    fn branch_that_starts_like_lzma_is_raw() {
        assert_eq!(Format::detect(&[0x5D, 0, 0, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Ok(Format::Raw));
    }

    #[test]
    fn efi_kernels_by_name() {
        assert_eq!(refusal(b"MZ\0\0zimg"), ImageError::Container(Container::EfiZboot));
        let mut program = vec![0; 0x84];
        program[..2].copy_from_slice(b"MZ");
        program[0x3C] = 0x80;
        program[0x80..].copy_from_slice(b"PE\0\0");
        assert_eq!(refusal(&program), ImageError::Container(Container::EfiProgram));
    }

    #[test]
    fn kernels_for_other_machines_by_name() {
        let mut riscv = vec![0; 64];
        riscv[0x38..0x3C].copy_from_slice(b"RSC\x05");
        assert_eq!(refusal(&riscv), ImageError::OtherMachine { machine: "RISC-V" });
        let mut x86 = vec![0; 0x210];
        x86[0x202..0x206].copy_from_slice(b"HdrS");
        assert_eq!(refusal(&x86), ImageError::OtherMachine { machine: "x86" });
    }

    fn elf_fault(file: &[u8]) -> ElfFault {
        match refusal(file) {
            ImageError::Elf(fault) => fault,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn elf_for_another_machine() {
        let mut file = elf(0, &[]);
        file[18] = 62;
        assert_eq!(elf_fault(&file), ElfFault::Machine { machine: 62 });
        file[4] = 1;
        assert_eq!(elf_fault(&file), ElfFault::ThirtyTwoBit);
    }

    #[test]
    fn big_endian_elf() {
        let mut file = elf(0, &[]);
        file[5] = 2;
        assert_eq!(elf_fault(&file), ElfFault::BigEndian);
    }

    #[test]
    fn object_file() {
        let mut file = elf(0, &[]);
        file[16] = 1;
        assert_eq!(elf_fault(&file), ElfFault::NotExecutable { kind: 1 });
    }

    #[test]
    fn overlapping_segments() {
        let file = elf(0x4010_0000, &[Load(0, 0x4010_0000, 16, 0x2000), Load(0, 0x4010_1000, 16, 16)]);
        assert_eq!(elf_fault(&file), ElfFault::Overlap { first: 0x4010_0000, second: 0x4010_1000 });
    }

    #[test]
    fn segment_beyond_the_file() {
        let file = elf(0x4010_0000, &[Load(0, 0x4010_0000, 0x1001, 0x2000)]);
        assert_eq!(elf_fault(&file), ElfFault::SegmentOutsideFile { ipa: 0x4010_0000 });
    }

    #[test]
    fn segment_that_wraps_around() {
        let file = elf(0, &[Load(0, u64::MAX - 8, 16, 16)]);
        assert_eq!(elf_fault(&file), ElfFault::Damaged);
    }

    #[test]
    fn entry_outside_every_segment() {
        let file = elf(0x1234, &[Load(0x4010_0000, 0x4010_0000, 16, 16)]);
        assert_eq!(elf_fault(&file), ElfFault::EntryOutside { entry: 0x1234 });
    }

    #[test]
    fn nothing_to_load() {
        assert_eq!(elf_fault(&elf(0, &[])), ElfFault::NoSegments);
    }

    #[test]
    fn too_many_segments() {
        let segments: Vec<_> = (0..17).map(|index| Load(index, 0x4010_0000 + index, 1, 1)).collect();
        assert_eq!(elf_fault(&elf(0, &segments)), ElfFault::TooManySegments { limit: 16 });
    }

    #[test]
    fn empty_kernel() {
        assert_eq!(refusal(&[]), ImageError::Empty);
    }
}

mod any_input {
    use super::*;

    fn some_load() -> impl Strategy<Value = Load> {
        let address = prop_oneof![any::<u64>(), RAM_BASE..RAM_BASE + 8 * MIB, Just(RAM_BASE)];
        let len = prop_oneof![any::<u64>(), 0..0x1000_u64, 0..8 * MIB];
        (address.clone(), address, 0..0x1100_u64, len).prop_map(|(a, b, c, d)| Load(a, b, c, d))
    }

    fn some_kernel() -> impl Strategy<Value = Vec<u8>> {
        let edits = prop::collection::vec((0..0x100_usize, any::<u8>()), 0..6);
        let whole = prop_oneof![
            (
                prop_oneof![Just(0), Just(0x8_0000), 0..4 * MIB, any::<u64>()],
                prop_oneof![0..16 * MIB, any::<u64>()]
            )
                .prop_map(|(text_offset, image_size)| linux(text_offset, image_size)),
            (RAM_BASE..RAM_BASE + MIB, prop::collection::vec(some_load(), 0..5))
                .prop_map(|(entry, segments)| elf(entry, &segments)),
            prop::collection::vec(any::<u8>(), 0..200),
        ];
        (whole, edits, 0..0x2100_usize).prop_map(|(mut bytes, edits, cut)| {
            for (at, byte) in edits {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            bytes.truncate(cut);
            bytes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn plan_is_sound_or_refused_in_words(
            kernel in some_kernel(),
            initrd in prop::option::of(0..6_usize << 20),
            memory in 1..16_u64,
        ) {
            let memory = memory * 2 * MIB;
            let zeroes = vec![0; initrd.unwrap_or(0)];
            match plan(&kernel, initrd.map(|_| zeroes.as_slice()), memory) {
                Ok(plan) => assert_sound(&plan, memory),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}
