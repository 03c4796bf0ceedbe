{
  name = "virshle-hardening";

  nodes.host = { };

  testScript = ''
    import json

    host.wait_for_unit("virshle-apply.service")
    vm = json.loads(host.succeed("v vm info web -o json"))[0]

    with subtest("no unit is more exposed than it was"):
        # Of 100; as in tests/systemd/hardening.rs, with what NixOS adds to the units.
        for unit, limit in {
            f"virshle-vm@{vm['uuid']}.service": 91,
            "virshle-network@lan.service": 91,
            "virshle@probe.service": 80,
            "virshle-apply.service": 97,
        }.items():
            host.succeed(f"systemd-analyze security --no-pager --threshold={limit} {unit}")

    with subtest("the hypervisor has no privileges"):
        status = host.succeed(f"cat /proc/{vm['hypervisor_pid']}/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert vm["hypervisor_user"] == "virshle-vm", vm["hypervisor_user"]
        assert fields["NoNewPrivs"] == "1", status
        assert fields["Seccomp"] == "2", status
        assert int(fields["CapEff"], 16) == 0, status

    with subtest("nobody else sees into the folders or comes through the door"):
        host.fail("su nobody -s /bin/sh -c 'ls /var/lib/virshle'")
        assert host.succeed("stat -c '%a %U %G' /run/virshle/virshle.sock").strip() == "660 root virshle"
  '';
}
