#!/bin/busybox sh
# The first process of the stock Debian guest: mounts what a shell needs, says that it is up, gives a shell.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TERM=vt100
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts

# There is no init daemon to ask, so these must go to the kernel at once.
cat > /root/.profile <<'PROFILE'
alias poweroff='poweroff -f'
alias reboot='reboot -f'
alias halt='halt -f'
PROFILE
export ENV=/root/.profile

# The kernel's own time when it started this, for comparisons between machines.
dmesg | sed -n 's/^\[ *\([0-9.]*\)\] Run \/init as init process.*/entresol: init started after \1 s/p'

cd /root
echo "entresol: guest userspace up: $(nproc) CPUs, $(uname -srm)"
# cttyhack makes the console the controlling terminal: job control and Ctrl-C work. A shell that is left comes back.
while :; do
    setsid cttyhack sh
done
