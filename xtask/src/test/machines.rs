//! One image on all machines: on each, Debian gets a shell as an SMP guest, runs commands and powers off.
//!
//! Main type: [`Machines`]; the machines are data, [`PLACES`]. All of them get the same bundle and must have been given
//! the same image, byte for byte. What they said about themselves becomes a table, printed at the end and kept as
//! `build/test/machines.txt`: how many CPUs came up, who sets the access flag at stage 2, and after how many virtual
//! seconds the guest's kernel had a user space.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use regex::Regex;
use sha2::{Digest as _, Sha256};

use super::Ring;
use super::job::{Job, Tally};
use super::system::{file_name, keep_transcript};
use crate::bundle;
use crate::console::Session;
use crate::expect::Script;
use crate::flash::{self, Family, File, disk, rpi};
use crate::layout::Layout;
use crate::log::Decoder;
use crate::no_firmware::{self, Tree};
use crate::qemu::{self, Board, Boot, Entry, Machine};
use crate::run;
use crate::scenario::{self, End, Plan};

/// A machine and how it is started.
struct Place {
    name: &'static str,
    board: Board,
    gic: u8,
    secure: bool,
    cpu: &'static str,
    cpus: u8,
    /// Who sets the access flag at stage 2 on such CPUs.
    access_flag: &'static str,
    /// What else is printed on such CPUs.
    also: &'static str,
    start: Start,
    /// Whether it can be switched off.
    end: End,
    seconds: u64,
}

/// Who enters the image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// QEMU in a boot loader's place, at EL2.
    Direct,
    /// Nobody: the image starts at EL3 and finds a machine as it was switched on.
    NoFirmware,
    /// U-Boot, from the disk image that `flash nxp` writes.
    UBoot,
    /// QEMU in the place of the Raspberry Pi's firmware, from the disk image that `flash rpi` writes.
    RaspberryPi,
}

/// What most places have in common.
const USUAL: Place = Place {
    name: "",
    board: Board::Virt,
    gic: 3,
    secure: false,
    cpu: "max",
    cpus: 4,
    access_flag: "hardware",
    also: "",
    start: Start::Direct,
    end: End::PowerOff,
    seconds: 120,
};

/// An older CPU: no hardware access flag, no VHE, 8-bit VMIDs.
const A72: Place = Place {
    cpu: "cortex-a72",
    access_flag: "software",
    also: r"Cortex-A72 r0p[0-9]\) has erratum 1319367",
    ..USUAL
};

/// One older still.
const A53: Place = Place { cpu: "cortex-a53", also: "", ..A72 };

const PLACES: [Place; 12] = [
    Place { name: "virt gicv3 max", ..USUAL },
    Place { name: "virt gicv2 cortex-a72", gic: 2, ..A72 },
    Place { name: "virt gicv3 cortex-a53", ..A53 },
    Place { name: "virt secure gicv3 max", secure: true, ..USUAL },
    // Nobody answers PSCI there: the other CPUs stay off, and so does the power switch.
    Place {
        name: "virt from el3 gicv3 max",
        secure: true,
        cpus: 1,
        start: Start::NoFirmware,
        end: End::AllSeen,
        ..USUAL
    },
    Place {
        name: "virt from el3 gicv2 cortex-a72",
        secure: true,
        gic: 2,
        cpus: 1,
        start: Start::NoFirmware,
        end: End::AllSeen,
        ..A72
    },
    // It counts down, and reads the card through an emulated disk.
    Place { name: "virt by u-boot gicv3 cortex-a72", start: Start::UBoot, seconds: 180, ..A72 },
    // The CPUs that wait to be started take the emulator's time.
    Place { name: "raspi4b", board: Board::Raspi4b, seconds: 180, ..A72 },
    Place {
        name: "raspi4b from its card",
        board: Board::Raspi4b,
        start: Start::RaspberryPi,
        seconds: 180,
        ..A72
    },
    Place { name: "imx8mp-evk", board: Board::Imx8mpEvk, ..A53 },
    Place { name: "xlnx-zcu102", board: Board::Zcu102, ..A53 },
    // Without firmware it can't be switched off.
    Place {
        name: "sbsa-ref neoverse-n2",
        board: Board::SbsaRef,
        cpu: "neoverse-n2",
        end: End::AllSeen,
        ..USUAL
    },
];

const GUEST: &str = "tests/system/debian.toml";

/// What is seen and typed on each of them.
const SCRIPT: [(&str, &str); 5] = [
    ("guest userspace up: 2 CPUs", ""),
    ("# ", "nproc\\n"),
    (r"^2\n", "cat /proc/interrupts\\n"),
    ("arch_timer", "poweroff\\n"),
    ("the last VM is off: powering off", ""),
];

/// What follows where nobody can switch the machine off. QEMU is ended by us then.
const STAYS_ON: &str = "this machine can't be switched off from here: halted";

/// What one machine told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    machine: &'static str,
    cpus: String,
    access_flag: String,
    seconds: String,
    image: String,
}

/// What the jobs share: the one bundle, and the table that they fill.
#[derive(Default)]
pub(super) struct Machines {
    bundle: OnceLock<Result<PathBuf, String>>,
    records: Mutex<Vec<Record>>,
}

impl Machines {
    /// One job per machine.
    pub(super) fn jobs<'a>(&'a self, layout: &'a Layout) -> Vec<Job<'a>> {
        let job = |place: &'static Place| Job {
            ring: Ring::System,
            name: format!("debian gets a shell on {}", place.name),
            work: Box::new(move || self.work(layout, place)),
        };
        PLACES.iter().map(job).collect()
    }

    /// Once all jobs are done: prints the table and judges it. Nothing if no job was run.
    pub(super) fn conclude(&self, layout: &Layout) -> Result<Tally> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if records.is_empty() {
            return Ok(Tally::default());
        }
        records.sort_by_key(|record| PLACES.iter().position(|place| place.name == record.machine));
        let table = table(&records);
        print!("{table}");
        fs::write(layout.build().join("test/machines.txt"), &table)?;
        Ok(same_image(&records, &hash(&fs::read(layout.image())?)))
    }

    fn work(&self, layout: &Layout, place: &'static Place) -> Result<Tally> {
        let directory = layout.build().join("test").join(file_name(place.name));
        fs::create_dir_all(&directory)?;
        let mut script = Script::default();
        if place.start == Start::NoFirmware {
            script.expect("started at EL3: no firmware")?;
        }
        for (pattern, answer) in SCRIPT {
            script.expect(pattern)?;
            script.send(answer)?;
        }
        if place.end == End::AllSeen {
            script.expect(STAYS_ON)?;
        }
        let plan = Plan { script, end: place.end, timeout: Duration::from_secs(place.seconds) };
        let (command, image) = start(layout, place, self.bundle(layout)?, &directory)?;
        let mut session = Session::start(command, Decoder::open(&layout.elf())?)?;
        let outcome = scenario::play(&mut session, &plan, |_| Ok(()))?;
        keep_transcript(layout, place.name, session.transcript())?;
        outcome?;
        let record = record(place, &session.transcript().lines().join("\n"), hash(&image))?;
        self.records.lock().unwrap_or_else(PoisonError::into_inner).push(record);
        Ok(Tally::success())
    }

    fn bundle(&self, layout: &Layout) -> Result<PathBuf> {
        let pack = || {
            let place = layout.build().join("test/machines.bundle");
            bundle::pack(layout, &layout.root().join(GUEST), &place)?;
            Ok(place)
        };
        let packed = self.bundle.get_or_init(|| pack().map_err(|error: anyhow::Error| format!("{error:#}")));
        packed.clone().map_err(|error| anyhow!(error))
    }
}

/// QEMU's command line for this place, and the image that it is given. Files it needs are left in `directory`.
fn start(layout: &Layout, place: &Place, bundle: PathBuf, directory: &Path) -> Result<(Command, Vec<u8>)> {
    let Place { board, gic, secure, cpus, .. } = *place;
    let machine =
        Machine { board, gic, secure, cpu: place.cpu.into(), cpus, memory: 1024, ..Machine::default() };
    let direct = |bundle| run::hypervisor_boot(layout, Some(bundle), "");
    let card = |family| card(layout, family, &bundle, directory);
    Ok(match place.start {
        Start::Direct => (qemu::command(layout, &machine, &direct(bundle), &[]), fs::read(layout.image())?),
        Start::NoFirmware => {
            let command = no_firmware::command(layout, &machine, &direct(bundle), Tree::Passed, directory)?;
            (command, fs::read(layout.image())?)
        }
        Start::UBoot => {
            let (disk, files) = card(Family::Nxp)?;
            let mut command = qemu::empty(layout, &machine, Entry::Hypervisor);
            command.arg("-bios").arg(layout.u_boot());
            command.arg("-drive").arg(format!("if=none,id=card,format=raw,file={}", disk.display()));
            command.args(["-device", "virtio-blk-device,drive=card"]);
            (command, contents(&files, "Image")?.to_vec())
        }
        Start::RaspberryPi => {
            let (_, files) = card(Family::Rpi)?;
            let rpi::Boot { kernel, initramfs, cmdline } = rpi::Boot::of(&files)?;
            let image = contents(&files, &kernel)?;
            let (kernel, initrd) = (directory.join(&kernel), directory.join(&initramfs));
            fs::write(&kernel, image)?;
            fs::write(&initrd, contents(&files, &initramfs)?)?;
            let boot = Boot { entry: Entry::Hypervisor, kernel, initrd: Some(initrd), cmdline };
            (qemu::command(layout, &machine, &boot, &[]), image.to_vec())
        }
    })
}

/// Writes a card as `cargo xtask flash` does, and reads it back.
fn card(layout: &Layout, family: Family, bundle: &Path, directory: &Path) -> Result<(PathBuf, Vec<File>)> {
    let disk = directory.join("card.img");
    let options = flash::Options {
        family,
        manifest: PathBuf::new(),
        output: Some(directory.join("card")),
        img: Some(disk.clone()),
        cmdline: "entresol.log=defmt".into(),
    };
    flash::write(layout, &options, bundle)?;
    let files = disk::read(&disk)?;
    Ok((disk, files))
}

fn contents<'a>(files: &'a [File], name: &str) -> Result<&'a [u8]> {
    let file = files.iter().find(|file| file.name == name);
    Ok(&file.with_context(|| format!("the card has no {name}"))?.contents)
}

/// Reads what the machine said about itself, and holds it against what is known of it.
fn record(place: &'static Place, printed: &str, image: String) -> Result<Record> {
    let find = |pattern: &str| -> Result<String> {
        let found = Regex::new(pattern)?.captures(printed).and_then(|captures| captures.get(1));
        Ok(found.with_context(|| format!("nothing was printed like `{pattern}`"))?.as_str().to_owned())
    };
    find(&format!("({})", place.also))?;
    let record = Record {
        machine: place.name,
        cpus: find(r"([0-9]+) CPU\(s\), [0-9]+-bit addresses")?,
        access_flag: find("access flag set by ([a-z]+)")?,
        seconds: find("init started after ([0-9.]+) s")?,
        image,
    };
    ensure!(record.cpus == place.cpus.to_string(), "{} CPUs came up, not {}", record.cpus, place.cpus);
    ensure!(record.access_flag == place.access_flag, "the access flag is set by {}", record.access_flag);
    Ok(record)
}

fn hash(image: &[u8]) -> String {
    Sha256::digest(image).iter().fold(String::new(), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn table(records: &[Record]) -> String {
    let mut text = format!(
        "{:32} {:>4}  {:11} {:>14}  image (SHA-256)\n",
        "Debian's shell on", "CPUs", "access flag", "user space [s]"
    );
    for Record { machine, cpus, access_flag, seconds, image } in records {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{machine:32} {cpus:>4}  {access_flag:11} {seconds:>14}  {image}");
    }
    text
}

/// Whether every machine was given the image with this hash.
fn same_image(records: &[Record], image: &str) -> Tally {
    let others = records.iter().filter(|record| record.image != image);
    let names: Vec<&str> = others.map(|record| record.machine).collect();
    if names.is_empty() {
        return Tally::success();
    }
    Tally::failure(format!("one image on all machines: another one was on {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::{A53, A72, Place, Record, record, same_image};

    const PLACE: Place = Place { name: "here", ..A53 };
    const PRINTED: &str = "entresol: 4 CPU(s), 44-bit addresses, 8-bit VMIDs, access flag set by software\n\
        entresol: init started after 1.328516 s";

    fn record_of(machine: &'static str, image: &str) -> Record {
        Record {
            machine,
            cpus: "4".into(),
            access_flag: "software".into(),
            seconds: "1.328516".into(),
            image: image.into(),
        }
    }

    #[test]
    fn record_is_read_from_what_was_printed() {
        let record = record(&PLACE, PRINTED, "aa".into()).expect("complete");
        assert_eq!(record, record_of("here", "aa"));
    }

    #[test]
    fn cpu_that_stayed_away_is_a_failure() {
        let printed = PRINTED.replace("4 CPU", "3 CPU");
        assert!(record(&PLACE, &printed, "aa".into()).is_err());
    }

    #[test]
    fn erratum_that_was_not_noticed_is_a_failure() {
        assert!(record(&A72, PRINTED, "aa".into()).is_err());
    }

    #[test]
    fn another_access_flag_than_the_cpu_has_is_a_failure() {
        let printed = PRINTED.replace("software", "hardware");
        assert!(record(&PLACE, &printed, "aa".into()).is_err());
    }

    #[test]
    fn machine_with_another_image_is_named() {
        let tally = same_image(&[record_of("one", "aa"), record_of("two", "bb")], "aa");
        assert!(tally.failures.iter().all(|failure| failure.ends_with("was on two")));
        assert_eq!((tally.passed, tally.failures.len()), (0, 1));
    }

    #[test]
    fn equal_images_are_one_passed_test() {
        let tally = same_image(&[record_of("one", "aa"), record_of("two", "aa")], "aa");
        assert_eq!((tally.passed, tally.failures.len()), (1, 0));
    }
}
