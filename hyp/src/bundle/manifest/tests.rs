//! What `vms.toml` may say, key by key, and what is said about mistakes.

use super::draft::KEYS;
use super::values::{command_line, memory_size, vm_name};
use super::*;
use crate::bundle::toml::Value;
use proptest::prelude::*;

const GOOD: &str = "\
[[vm]]
name = \"debian\"
cpus = 2
on = [1, 3]
memory = \"512M\"
kernel = \"vmlinuz\"
initrd = \"initrd.img\"
cmdline = \"console=ttyAMA0 quiet\"
autostart = false
on-poweroff = \"restart\"
on-reboot = \"stop\"
on-crash = \"restart\"
max-restarts = 9
";

/// A VM with `line` added to what every VM needs.
fn with(line: &str) -> String {
    format!("[[vm]]\nname = \"a\"\nmemory = \"2M\"\nkernel = \"k\"\n{line}\n")
}

fn only_vm(text: &str) -> Result<VmConfig, ConfigError> {
    let mut manifest = Manifest::parse(text);
    assert_eq!(manifest.problems, []);
    assert_eq!(manifest.vms.len(), 1);
    manifest.vms.remove(0)
}

/// The single thing wrong with the VM that has `line`, which is line 5.
fn complaint(line: &str) -> String {
    let error = only_vm(&with(line)).unwrap_err();
    assert_eq!(error.problems.len(), 1, "{error}");
    let text = error.to_string();
    String::from(text.strip_prefix("vms.toml line 5: ").unwrap_or(&text))
}

mod values {
    use super::*;

    #[test]
    fn every_key_is_taken() {
        let expected = VmConfig {
            name: "debian".into(),
            cpus: 2,
            on: Some([1, 3].to_vec()),
            memory: 512 << 20,
            kernel: "vmlinuz".into(),
            initrd: Some("initrd.img".into()),
            cmdline: "console=ttyAMA0 quiet".into(),
            autostart: false,
            policy: Policy {
                on_poweroff: Then::Restart,
                on_reboot: Then::Stop,
                on_crash: Then::Restart,
                max_restarts: 9,
            },
            lines: Lines { vm: 1, on: 4, memory: 5, kernel: 6, initrd: 7 },
        };
        assert_eq!(only_vm(GOOD), Ok(expected));
    }

    #[test]
    fn list_of_keys_is_complete() {
        for key in KEYS {
            assert!(GOOD.contains(&format!("\n{key} = ")), "{key} is not in the sample");
        }
    }

    #[test]
    fn three_keys_are_enough() {
        let vm = only_vm(&with("")).unwrap();
        assert_eq!((vm.cpus, vm.on, vm.initrd, vm.cmdline.as_str(), vm.autostart), (1, None, None, "", true));
        assert_eq!(
            (vm.policy.on_poweroff, vm.policy.on_reboot, vm.policy.on_crash),
            (Then::Stop, Then::Restart, Then::Stop)
        );
    }

    #[test]
    fn number_of_placed_cpus_is_the_number_of_vcpus() {
        assert_eq!(only_vm(&with("on = [0, 2, 2]")).unwrap().cpus, 3);
    }

    #[test]
    fn text_from_other_editors_is_taken() {
        assert_eq!(only_vm(&format!("\u{feff}{}", GOOD.replace('\n', "\r\n"))), only_vm(GOOD));
    }

    #[test]
    fn memory_has_units() {
        for (text, bytes) in [("2M", 2 << 20), ("512MiB", 512 << 20), ("1G", 1 << 30), ("3GiB", 3 << 30)] {
            assert_eq!(memory_size(Value::String(text.into())), Ok(bytes));
        }
    }
}

mod mistakes {
    use super::*;

    #[test]
    fn misspelt_key_is_guessed() {
        assert_eq!(complaint("memroy = \"1G\""), "unknown key `memroy`; did you mean `memory`?");
        assert_eq!(complaint("on_crash = \"stop\""), "unknown key `on_crash`; did you mean `on-crash`?");
        assert_eq!(complaint("cpu = 2"), "unknown key `cpu`; did you mean `cpus`?");
    }

    #[test]
    fn unknown_key_gets_the_list() {
        assert_eq!(
            complaint("colour = 1"),
            "unknown key `colour`; a VM has `name`, `cpus`, `on`, `memory`, `kernel`, `initrd`, `cmdline`, `autostart`, \
             `on-poweroff`, `on-reboot`, `on-crash`, `max-restarts`"
        );
    }

    #[test]
    fn short_key_is_not_taken_for_another_short_one() {
        assert!(complaint("io = 1").starts_with("unknown key `io`; a VM has"));
    }

    #[test]
    fn key_three_letters_off_is_not_guessed() {
        assert!(complaint("max-rests = 1").starts_with("unknown key `max-rests`; a VM has"));
    }

    #[test]
    fn long_text_is_cut_in_messages() {
        let shown = complaint(&format!("on-crash = \"{}\"", "x".repeat(3000)));
        assert_eq!(
            shown,
            format!("`on-crash` can't be `{}...`: write \"stop\" or \"restart\"", "x".repeat(60))
        );
    }

    #[test]
    fn text_cannot_break_a_message_into_lines() {
        assert!(complaint("\"a\\nb\" = 1").starts_with("unknown key `a\\nb`"));
    }

    #[test]
    fn repeated_key_names_the_first() {
        assert_eq!(complaint("kernel = \"l\""), "`kernel` is given twice, first on line 4: keep one of them");
    }

    #[test]
    fn wrong_type_shows_the_right_one() {
        assert_eq!(complaint("cpus = \"2\""), "`cpus` wants a number, not the string `2`: write `cpus = 2`");
        assert_eq!(
            complaint("autostart = \"yes\""),
            "`autostart` wants true or false, not the string `yes`: write `autostart = true`"
        );
        assert_eq!(
            complaint("on = 1"),
            "`on` wants a list of physical CPUs, not the number 1: write `on = [0, 1]`"
        );
        assert_eq!(
            complaint("cmdline = 1.5"),
            "`cmdline` wants a string, not a number with a fraction: write `cmdline = \"console=ttyAMA0\"`"
        );
    }

    #[test]
    fn memory_without_or_with_a_strange_unit_is_refused() {
        let said = |text: &str| memory_size(Value::String(text.into())).unwrap_err();
        assert_eq!(
            memory_size(Value::Integer(512)).unwrap_err(),
            "`memory = 512` has no unit: write \"512M\" for MiB"
        );
        assert_eq!(
            said("512MB"),
            "`512MB` is no amount of memory: write a number and M or G, such as \"512M\""
        );
        assert_eq!(said("3M"), "`3M` is not a multiple of 2M: write \"4M\"");
        assert_eq!(said("0M"), "`0M` of memory: a VM can have \"2M\" to \"255G\"");
        assert_eq!(
            said("99999999999999999999G"),
            "`99999999999999999999G` of memory: a VM can have \"2M\" to \"255G\""
        );
        assert_eq!(said("M"), "`M` is no amount of memory: write a number and M or G, such as \"512M\"");
    }

    #[test]
    fn number_of_vcpus_has_bounds() {
        assert_eq!(complaint("cpus = 9"), "9 vCPUs: a VM can have 1 to 8");
        assert_eq!(complaint("cpus = 0"), "0 vCPUs: a VM can have 1 to 8");
        assert_eq!(complaint("cpus = -1"), "-1 vCPUs: a VM can have 1 to 8");
    }

    #[test]
    fn placement_has_bounds() {
        assert_eq!(complaint("on = []"), "`on` lists 0 CPUs: name 1 to 8, or leave it out");
        assert_eq!(complaint("on = [16]"), "`on` names physical CPU 16: they are numbered 0 to 15");
        assert_eq!(
            complaint("on = [0]\ncpus = 2"),
            "`on` lists 1 CPUs for 2 vCPUs: name one physical CPU for each vCPU"
        );
    }

    #[test]
    fn policy_is_one_of_two_words() {
        assert_eq!(
            complaint("on-crash = \"reboot\""),
            "`on-crash` can't be `reboot`: write \"stop\" or \"restart\""
        );
        assert_eq!(
            complaint("on-crash = \"restrat\""),
            "`on-crash` can't be `restrat`; did you mean `restart`?"
        );
    }

    #[test]
    fn every_missing_key_is_named() {
        let error = only_vm("[[vm]]\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "vms.toml line 1: this VM has no `name`: add a line such as `name = \"debian\"`\n\
             vms.toml line 1: this VM has no `memory`: add a line such as `memory = \"512M\"`\n\
             vms.toml line 1: this VM has no `kernel`: add a line such as `kernel = \"vmlinuz\"`"
        );
    }

    #[test]
    fn name_is_fit_for_a_prompt() {
        for name in ["", "a b", "é", "a\\n", "x23456789012345678901234567890123"] {
            assert!(vm_name(name.into()).is_err(), "{name}");
        }
    }

    #[test]
    fn command_line_has_bounds() {
        assert!(command_line("x".repeat(MAX_CMDLINE).into()).is_ok());
        assert!(command_line("x".repeat(MAX_CMDLINE + 1).into()).is_err());
        assert!(command_line("a\0b".into()).is_err());
    }
}

mod several_vms {
    use super::*;

    #[test]
    fn bad_vm_leaves_the_others_alone() {
        let text = [with(""), with("cpus = [").replace("\"a\"", "\"b\""), with("").replace("\"a\"", "\"c\"")]
            .concat();
        let manifest = Manifest::parse(&text);
        let good: Vec<_> = manifest.vms.iter().map(Result::is_ok).collect();
        assert_eq!(good, [true, false, true]);
        assert_eq!(manifest.vms[1].as_ref().unwrap_err().name.as_deref(), Some("b"));
    }

    #[test]
    fn second_vm_of_a_name_is_refused() {
        let manifest = Manifest::parse(&(with("") + &with("")));
        assert!(manifest.vms[0].is_ok());
        assert_eq!(
            manifest.vms[1].as_ref().unwrap_err().to_string(),
            "vms.toml line 6: a second VM called `a`, the first is on line 1: give it another name"
        );
    }

    #[test]
    fn seventeenth_vm_is_refused() {
        let text: String =
            (0..18).map(|index| with("").replace("\"a\"", &format!("\"vm{index}\""))).collect();
        let manifest = Manifest::parse(&text);
        assert_eq!(manifest.vms.len(), MAX_VMS);
        assert_eq!(manifest.problems.len(), 1);
    }
}

mod other_text {
    use super::*;

    #[test]
    fn empty_text_is_a_problem() {
        let manifest = Manifest::parse("# nothing yet\n");
        assert_eq!(
            manifest.problems[0].to_string(),
            "vms.toml line 1: no VM in it: start each one with a line `[[vm]]`"
        );
    }

    #[test]
    fn keys_outside_a_vm_are_problems_and_the_vm_is_kept() {
        let manifest = Manifest::parse(&("memory = \"1G\"\n".to_owned() + &with("") + "[[vmm]]\n"));
        assert!(manifest.vms[0].is_ok());
        let problems: Vec<_> = manifest.problems.iter().map(|problem| problem.to_string()).collect();
        assert_eq!(
            problems,
            [
                "vms.toml line 1: `memory` stands before the first `[[vm]]`: move it below",
                "vms.toml line 7: unknown section `vmm`: each VM starts with `[[vm]]`"
            ]
        );
    }

    #[test]
    fn single_brackets_are_reported_at_the_vm() {
        let manifest = Manifest::parse(&with("").replace("[[vm]]", "[vm]"));
        let error = manifest.vms[0].as_ref().unwrap_err().to_string();
        assert_eq!(error, "vms.toml line 1: a VM starts with `[[vm]]`, in double brackets");
    }

    proptest! {
        #[test]
        fn mutated_text_never_panics(edits in prop::collection::vec((0..GOOD.len(), any::<u8>()), 0..8)) {
            let mut bytes = GOOD.as_bytes().to_vec();
            for (at, byte) in edits {
                bytes[at] = byte;
            }
            let manifest = Manifest::parse(&String::from_utf8_lossy(&bytes));
            for error in manifest.vms.iter().filter_map(|vm| vm.as_ref().err()) {
                prop_assert!(!error.problems.is_empty());
            }
        }
    }
}
