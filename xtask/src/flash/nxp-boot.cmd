# Entresol by U-Boot, as a Linux kernel: image, bundle of guests in the initrd's place, device tree.
# U-Boot runs boot.scr, which holds these lines; by hand: source ${scriptaddr}

# NXP's own U-Boot names the disk otherwise than the others do.
test -n "${devtype}" || setenv devtype mmc
test -n "${devnum}" || setenv devnum ${mmcdev}
test -n "${distro_bootpart}" || setenv distro_bootpart ${mmcpart}
test -n "${distro_bootpart}" || setenv distro_bootpart 1
test -n "${kernel_addr_r}" || setenv kernel_addr_r ${loadaddr}
test -n "${fdt_addr_r}" || setenv fdt_addr_r ${fdt_addr}
test -n "${ramdisk_addr_r}" || setenv ramdisk_addr_r ${initrd_addr}
setenv entresol_disk "${devtype} ${devnum}:${distro_bootpart}"
echo "entresol: booting from ${entresol_disk}"

# The board's device tree from the disk; without it, the one that U-Boot itself runs with.
setenv entresol_tree ${fdtcontroladdr}
if test -e ${entresol_disk} ${prefix}board.dtb; then
    load ${entresol_disk} ${fdt_addr_r} ${prefix}board.dtb && setenv entresol_tree ${fdt_addr_r}
fi

setenv bootargs "@CMDLINE@"
# The bundle comes last: its size is what ${filesize} must be.
if load ${entresol_disk} ${kernel_addr_r} ${prefix}Image; then
    if load ${entresol_disk} ${ramdisk_addr_r} ${prefix}entresol.bnd; then
        booti ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${entresol_tree}
        echo "entresol: booti refused: see above"
    else
        echo "entresol: cannot load entresol.bnd: is it beside boot.scr?"
    fi
else
    echo "entresol: cannot load Image: is it beside boot.scr?"
fi
