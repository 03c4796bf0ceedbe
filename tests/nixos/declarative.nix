{
  name = "virshle-declarative";

  nodes.host =
    { lib, ... }:
    {
      specialisation = {
        changed.configuration.services.virshle.vms = {
          web.labels.tier = "front";
          db = {
            template = "xs";
            running = false;
          };
        };
        removed.configuration.services.virshle.vms = lib.mkForce { };
      };
    };

  testScript = ''
    import json
    import re

    def switch(to, action="test"):
        return host.succeed(f"/run/booted-system/specialisation/{to}/bin/switch-to-configuration {action} 2>&1")

    def states():
        return {vm["name"]: vm["state"] for vm in json.loads(host.succeed("v vm ls -o json"))}

    host.wait_for_unit("virshle-apply.service")
    host.succeed("v vm create -t xs -n mine")
    begin = {"web": "running", "mine": "stopped"}
    assert states() == begin

    with subtest("a dry activation tells the plan, and does nothing"):
        plan = switch("changed", "dry-activate")
        assert re.search(r"^db +create", plan, re.M) and "labels.tier" in plan, plan
        assert "mine" not in plan, plan
        assert states() == begin

    with subtest("added, and changed while it runs"):
        switch("changed")
        assert states() == begin | {"db": "stopped"}
        assert "web" in host.succeed("v vm ls --label tier=front")
        host.succeed("v plan")

    with subtest("removed: shut down and kept"):
        host.wait_until_succeeds("v vm ssh -i /etc/alice web -- true", timeout=1800)
        switch("removed")
        assert states() == {"web": "stopped", "db": "stopped", "mine": "stopped"}
        host.succeed("v plan")
  '';
}
