{
  name = "virshle-guest-image";

  nodes.host = {
    services.virshle.templates.xs.vramMax = "2G";
    specialisation.larger.configuration.services.virshle.vms.web.vram = "1536MiB";
  };

  testScript = ''
    def guest(command):
        return host.succeed(f"v vm ssh -i /etc/alice web -- {command}")

    def memory():
        return int(guest("grep MemTotal /proc/meminfo").split()[1])

    host.wait_for_unit("virshle-apply.service")
    host.wait_until_succeeds("v vm ssh -i /etc/alice web -- true", timeout=1800)

    with subtest("nothing failed"):
        assert guest("systemctl is-system-running --wait").strip() == "running"

    with subtest("its root has grown to its disk"):
        assert int(guest("df --output=size --block-size=1M /").split()[1]) > 6 * 1024

    with subtest("the console and the line to the host are there"):
        consoles = guest("cat /proc/consoles")
        assert "ttyS0" in consoles or "ttyAMA0" in consoles, consoles
        guest("systemctl is-active sshd-vsock.socket")

    with subtest("its address is the one that it was given, and no other"):
        assert "10.44.0.2/24" in guest("ip -brief -4 address show scope global")
        guest("! systemctl is-active dhcpcd.service")

    with subtest("memory that is added while it runs is used"):
        before = memory()
        host.succeed("/run/booted-system/specialisation/larger/bin/switch-to-configuration test")
        assert memory() > before + 400 * 1024
  '';
}
