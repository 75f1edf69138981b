# The menu. The work is done by the host tool, `cargo xtask --help`.

XTASK = xtask/setup.sh && .cache/cargo xtask

help:  ## Show this menu
	@sed -n 's/^\([a-z]*\):  *## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

run:  ## Fetch what is missing, build, boot Debian beside a small guest (options: ARGS="--gic 2 --smp 4")
	@$(XTASK) run vms/default.toml $(ARGS)

test:  ## Run all tests (a part of them: ARGS=name)
	@$(XTASK) test $(ARGS)

bench:  ## Measure the hypervisor's costs in instructions and compare them with their limits
	@$(XTASK) bench $(ARGS)

image:  ## Build build/Image and build/entresol.elf
	@$(XTASK) image

check:  ## Format and lint
	@$(XTASK) test --only lint

setup:  ## Fetch what this machine lacks: QEMU, Debian's kernel, the Rust target
	@$(XTASK) setup

clean:  ## Remove what was built (downloads stay in .cache)
	rm -rf build target

.PHONY: help run test bench image check setup clean
.DEFAULT_GOAL = help
