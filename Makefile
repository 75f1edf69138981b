# The menu. The work is done by the host tool, `cargo xtask --help`.

XTASK = xtask/setup.sh && .cache/cargo xtask

help:  ## Show this menu
	@sed -n 's/^\([a-z-]*\):  *## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

run:  ## Fetch what is missing, build, boot Debian beside a small guest (options: ARGS="--gic 2 --smp 4")
	@$(XTASK) run vms/default.toml $(ARGS)

test:  ## Run all tests (a part of them: ARGS=name)
	@$(XTASK) test $(ARGS)

test-deep:  ## The same, with hours for what can be tried in many orders
	@$(XTASK) test --deep $(ARGS)

bench:  ## Measure the hypervisor's costs in instructions and compare them with their limits
	@$(XTASK) bench $(ARGS)

image:  ## Build build/Image and build/entresol.elf
	@$(XTASK) image

flash-rpi:  ## Write build/flash-rpi: the boot partition of a Raspberry Pi 4 or 5 (options: VMS=my.toml IMG=card.img)
	@$(XTASK) flash rpi $(VMS) $(if $(IMG),--img $(IMG)) $(ARGS)

flash-nxp:  ## Write build/flash-nxp: the boot partition of a board with U-Boot (options: VMS=my.toml IMG=card.img)
	@$(XTASK) flash nxp $(VMS) $(if $(IMG),--img $(IMG)) $(ARGS)

check:  ## Format and lint
	@$(XTASK) test --only lint

setup:  ## Fetch what this machine lacks: QEMU, Debian's kernel, U-Boot, the Rust target
	@$(XTASK) setup

clean:  ## Remove what was built (downloads stay in .cache)
	rm -rf build target

.PHONY: help run test test-deep bench image flash-rpi flash-nxp check setup clean
.DEFAULT_GOAL = help
