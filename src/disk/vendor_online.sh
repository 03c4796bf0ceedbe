#cloud-boothook
#!/bin/sh
# Use memory and processors that come while the guest runs: some distributions leave them idle until
# somebody says so. Installed once; empty the file if you do not want that, and it stays so.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
rules=/etc/udev/rules.d/80-virshle-online.rules

[ -d /etc/udev ] || exit 0
[ ! -e "$rules" ] && [ ! -h "$rules" ] || exit 0
mkdir -p /etc/udev/rules.d || exit 0
cat >"$rules" <<'END' || exit 0
ACTION=="add", SUBSYSTEM=="memory", ATTR{state}=="offline", ATTR{state}="online"
ACTION=="add", SUBSYSTEM=="cpu", ATTR{online}=="0", ATTR{online}="1"
END
udevadm control --reload
exit 0
