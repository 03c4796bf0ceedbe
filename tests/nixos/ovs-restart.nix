{
  name = "virshle-ovs-restart";

  nodes.host =
    { lib, ... }:
    {
      services.virshle = {
        openvswitch.enable = true;
        networks.lan = {
          type = lib.mkForce "ovs";
          bridge = lib.mkForce "vsbr0";
        };
        templates.xs.nets.lan.type = "tap";
      };
    };

  testScript = ''
    import json

    def guest():
        return json.loads(host.succeed("v vm info web -o json"))[0]

    host.wait_for_unit("virshle-apply.service")
    host.wait_for_unit("ovs-vswitchd.service")
    before = guest()
    ping = f"ping -c1 -W2 {before['nics'][0]['address'].split('/')[0]}"
    host.wait_until_succeeds(ping, timeout=1800)

    for unit in ["ovs-vswitchd.service", "ovsdb.service"]:
        with subtest(f"{unit} is started anew"):
            host.succeed(f"systemctl restart {unit}")
            host.wait_until_succeeds(ping, timeout=120)
            assert guest()["hypervisor_pid"] == before["hypervisor_pid"]
            assert not guest()["troubles"], guest()["troubles"]
  '';
}
