#cloud-boothook
#!/bin/sh
# Serve ssh on the line to the host that needs no network (AF_VSOCK, port 22), where systemd does not
# do so by itself: before 256 it has no systemd-ssh-generator. Installed once; `systemctl disable`
# or `mask` what you do not want, and it stays so.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
units=/etc/systemd/system
name=virshle-ssh-vsock

[ -d /run/systemd/system ] && [ -e /dev/vsock ] || exit 0
[ ! -e /usr/lib/systemd/system-generators/systemd-ssh-generator ] || exit 0
[ ! -e "$units/$name.socket" ] && [ ! -h "$units/$name.socket" ] || exit 0
sshd=$(command -v sshd) || exit 0

# A host key may still be in the making: connections wait for cloud-init.
cat >"$units/$name@.service" <<END || exit 0
[Unit]
Description=SSH over vsock
After=cloud-init.service cloud-init-network.service sshd-keygen.service sshd-keygen.target

[Service]
ExecStart=-$sshd -i
StandardInput=socket
RuntimeDirectory=sshd
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
END

cat >"$units/$name.socket" <<END || exit 0
[Unit]
Description=SSH over vsock
ConditionPathExists=!/usr/lib/systemd/system-generators/systemd-ssh-generator

[Socket]
ListenStream=vsock::22
Accept=yes

[Install]
WantedBy=sockets.target
END

mkdir -p "$units/sockets.target.wants" && ln -s "../$name.socket" "$units/sockets.target.wants/" || exit 0
# Now too. Without waiting: systemd may be waiting for cloud-init.
systemctl --no-block start "$name.socket" 2>/dev/null && exit 0
systemctl daemon-reload && systemctl --no-block start "$name.socket"
exit 0
