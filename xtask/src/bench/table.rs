//! What is measured, where, and what it is compared with: all of it data, and the printing of it.
//!
//! Main types: [`Setup`] (one boot), [`Row`] (one figure) and [`Figures`] (what was found). The rivals' figures were
//! measured by the same guest on the same emulated machine; their versions are those of the beginning of this project.

use std::collections::BTreeMap;

/// What runs in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workload {
    /// Our measuring guest.
    Guest,
    /// Debian's kernel, to its init.
    Debian,
}

/// One boot that yields figures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) name: &'static str,
    pub(super) workload: Workload,
    pub(super) gic: u8,
    /// Physical CPUs.
    pub(super) cpus: u8,
    /// The guests' description, below the root.
    pub(super) guests: &'static str,
    /// The memory it gives the guest, in MiB: what the bare machine has.
    pub(super) memory: u32,
    /// Whether a bare machine is measured too.
    pub(super) bare: bool,
    /// Put before the names of the figures, where other boots have figures of the same name.
    pub(super) prefix: &'static str,
    /// The figures that are taken from this boot, by their beginnings.
    pub(super) wanted: &'static [&'static str],
}

/// The boots. The first one is the set-up of all rivals' figures.
pub(super) const SETUPS: [Setup; 5] = [
    Setup {
        name: "one vCPU, GICv3",
        workload: Workload::Guest,
        gic: 3,
        cpus: 1,
        guests: "bench/vms.toml",
        memory: 128,
        bare: true,
        prefix: "",
        wanted: &[""],
    },
    Setup {
        name: "two vCPUs, GICv3",
        workload: Workload::Guest,
        gic: 3,
        cpus: 2,
        guests: "bench/vms-smp.toml",
        memory: 128,
        bare: true,
        prefix: "",
        wanted: &["ipi_"],
    },
    Setup {
        name: "one vCPU, GICv2",
        workload: Workload::Guest,
        gic: 2,
        cpus: 1,
        guests: "bench/vms.toml",
        memory: 128,
        bare: true,
        prefix: "gicv2_",
        wanted: &["hvc_psci", "gicd_", "sgi_", "vtimer_"],
    },
    Setup {
        name: "large guest",
        workload: Workload::Guest,
        gic: 3,
        cpus: 1,
        guests: "bench/vms-large.toml",
        memory: 512,
        bare: false,
        prefix: "large_",
        wanted: &["reset_physical"],
    },
    Setup {
        name: "Debian",
        workload: Workload::Debian,
        gic: 3,
        cpus: 1,
        guests: "bench/vms-debian.toml",
        memory: 512,
        bare: true,
        prefix: "debian_",
        wanted: &["to_init"],
    },
];

impl Setup {
    /// The figures of this boot that go into the table, by the names they have there.
    pub(super) fn named(&self, found: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let wanted = |name: &String| self.wanted.iter().any(|beginning| name.starts_with(beginning));
        let taken = found.into_iter().filter(|(name, _)| wanted(name));
        taken.map(|(name, value)| (format!("{}{name}", self.prefix), value)).collect()
    }
}

/// What was found, by name.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) bare: BTreeMap<String, u64>,
    pub(super) ours: BTreeMap<String, u64>,
}

/// What a figure must not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// Nothing was promised.
    None,
    /// This.
    AtMost(u64),
    /// The bare machine's figure and so many percent of it.
    OverBare(u64),
}

/// One figure and what to compare it with.
struct Row {
    name: &'static str,
    limit: Limit,
    /// The best rival's figure and the rival.
    rival: Option<(u64, &'static str)>,
}

const fn row(name: &'static str, limit: Limit, rival: Option<(u64, &'static str)>) -> Row {
    Row { name, limit, rival }
}

const ROWS: [Row; 31] = [
    row("hvc_psci_version", Limit::AtMost(80), Some((128, "hvisor, by SMC"))),
    row("smc_psci_version", Limit::None, Some((128, "hvisor"))),
    row("id_register_read", Limit::AtMost(120), Some((380, "Xen 4.23"))),
    row("gicd_typer_read", Limit::AtMost(130), Some((225, "Bao"))),
    row("gicd_isenabler_read", Limit::None, Some((675, "Xen 4.17"))),
    row("gicd_isenabler_write", Limit::AtMost(220), Some((722, "hvisor"))),
    row("gicr_isenabler_read", Limit::AtMost(140), Some((268, "Jailhouse"))),
    row("uart_fr_read", Limit::AtMost(140), Some((622, "Xen 4.17"))),
    row("uart_putc", Limit::None, Some((1313, "Xen 4.17"))),
    row("sgi_self_to_handler", Limit::AtMost(260), Some((343, "hvisor"))),
    row("sgi_self_round", Limit::None, Some((397, "hvisor"))),
    row("interrupt_acknowledge", Limit::None, Some((1, "all but KVM"))),
    row("interrupt_end", Limit::None, Some((1, "all but KVM"))),
    row("vtimer_to_handler_spinning", Limit::AtMost(150), Some((200, "Bao"))),
    row("vtimer_to_handler_wfi", Limit::AtMost(400), Some((201, "Bao, which does not yield"))),
    row("wfi_pending", Limit::None, None),
    row("ipi_to_running", Limit::None, Some((4781, "KVM VHE"))),
    row("ipi_to_wfi", Limit::None, Some((3883, "KVM VHE"))),
    row("first_touch_4k", Limit::None, Some((4, "Bao, populated before"))),
    row("first_touch_2m", Limit::None, Some((317_986, "KVM VHE"))),
    row("reset_physical", Limit::AtMost(400_000), Some((347_829, "Bao"))),
    row("large_reset_physical", Limit::AtMost(10_000_000), None),
    row("debian_to_init", Limit::OverBare(2), None),
    row("gicv2_hvc_psci_version", Limit::None, Some((193, "Bao"))),
    row("gicv2_gicd_typer_read", Limit::None, Some((225, "Bao"))),
    row("gicv2_gicd_isenabler_write", Limit::None, Some((714, "Xen 4.17"))),
    row("gicv2_sgi_self_to_handler", Limit::None, Some((807, "Bao"))),
    row("gicv2_sgi_self_round", Limit::None, None),
    row("gicv2_vtimer_to_handler_spinning", Limit::None, Some((205, "Bao"))),
    row("gicv2_vtimer_to_handler_wfi", Limit::None, None),
    row("image_bytes", Limit::AtMost(512 * 1024), Some((100_360, "Jailhouse"))),
];

/// Prints the table and returns how many limits are missed. A figure that is missing misses its limit.
pub(super) fn print(figures: &Figures) -> usize {
    println!("{:<34}{:>13}{:>13}{:>13}  best rival", "instructions", "bare", "entresol", "limit");
    let mut missed = 0;
    for row in &ROWS {
        let (bare, ours) = (figures.bare.get(row.name).copied(), figures.ours.get(row.name).copied());
        let limit = limit(row.limit, bare);
        let is_missed = is_missed(row.limit, limit, ours);
        missed += usize::from(is_missed);
        let rival = row.rival.map_or(String::new(), |(value, who)| format!("{} ({who})", grouped(value)));
        let [bare, ours, limit] = [bare, ours, limit].map(|value| value.map_or("-".into(), grouped));
        let mark = if is_missed { "  MISSED" } else { "" };
        println!("{:<34}{bare:>13}{ours:>13}{limit:>13}  {rival}{mark}", row.name);
    }
    missed
}

fn limit(limit: Limit, bare: Option<u64>) -> Option<u64> {
    match limit {
        Limit::None => None,
        Limit::AtMost(most) => Some(most),
        Limit::OverBare(percent) => bare.map(|bare| bare + bare * percent / 100),
    }
}

fn is_missed(limit: Limit, most: Option<u64>, ours: Option<u64>) -> bool {
    match (limit, most, ours) {
        (Limit::None, _, _) => false,
        (_, Some(most), Some(ours)) => ours > most,
        _ => true,
    }
}

/// `35200000` as `35,200,000`.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Figures, Limit, SETUPS, grouped, is_missed, limit};

    #[test]
    fn figure_at_its_limit_keeps_it() {
        assert!(!is_missed(Limit::AtMost(80), Some(80), Some(80)));
        assert!(is_missed(Limit::AtMost(80), Some(80), Some(81)));
    }

    #[test]
    fn missing_figure_misses_its_limit() {
        assert!(is_missed(Limit::AtMost(80), Some(80), None));
        assert!(is_missed(Limit::OverBare(2), None, Some(5)));
        assert!(!is_missed(Limit::None, None, None));
    }

    #[test]
    fn limit_over_bare_is_relative() {
        assert_eq!(limit(Limit::OverBare(2), Some(1000)), Some(1020));
    }

    #[test]
    fn only_wanted_figures_are_taken_under_their_prefix() {
        let found = [("gicd_typer_read".to_owned(), 5), ("uart_putc".to_owned(), 9)];
        let mut figures = Figures::default();
        figures.ours.extend(SETUPS[2].named(found.into_iter().collect()));
        assert_eq!(figures.ours.keys().collect::<Vec<_>>(), ["gicv2_gicd_typer_read"]);
    }

    #[test]
    fn digits_are_grouped_by_three() {
        assert_eq!([0, 999, 1000, 35_200_000].map(grouped), ["0", "999", "1,000", "35,200,000"]);
    }
}
