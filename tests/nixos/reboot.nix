{
  name = "virshle-reboot";

  nodes.host = {
    services.virshle.vms = {
      web.autostart = true;
      idle = {
        template = "xs";
        running = "leave";
      };
    };
  };

  testScript = ''
    import json

    ssh = "v vm ssh -i /etc/alice web --"

    def states():
        return {vm["name"]: vm["state"] for vm in json.loads(host.succeed("v vm ls -o json"))}

    host.wait_for_unit("virshle-apply.service")
    host.wait_until_succeeds(f"{ssh} true", timeout=1800)
    boot = host.succeed(f"{ssh} cat /proc/sys/kernel/random/boot_id")

    host.shutdown()
    host.start()
    host.wait_for_unit("multi-user.target")

    with subtest("what was to come back is back"):
        host.wait_until_succeeds(f"{ssh} true", timeout=1800)
        assert states() == {"web": "running", "idle": "stopped"}
        assert host.succeed(f"{ssh} cat /proc/sys/kernel/random/boot_id") != boot

    with subtest("the guest had been shut down, not cut off"):
        host.succeed(f"{ssh} sudo journalctl --boot=-1 --grep=Journal.stopped")
  '';
}
