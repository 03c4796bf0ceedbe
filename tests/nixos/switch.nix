{
  name = "virshle-switch";

  nodes.host =
    { config, pkgs, ... }:
    let
      # Another path in the store, as a new version is.
      next = pkgs.runCommand "virshle-next" { inherit (config.services.virshle.package) meta; } ''
        cp -r ${config.services.virshle.package} $out
        chmod -R u+w $out
        substituteInPlace $out/lib/systemd/system/* --replace-quiet ${config.services.virshle.package} $out
      '';
    in
    {
      specialisation.next.configuration.services.virshle.package = next;
    };

  testScript = ''
    import json

    def guest():
        vm = json.loads(host.succeed("v vm info web -o json"))[0]
        unit = f"virshle-vm@{vm['uuid']}.service"
        main = host.succeed(f"systemctl show -P MainPID {unit}").strip()
        return vm["hypervisor_pid"], vm["up_since"], main

    host.wait_for_unit("virshle-apply.service")
    before = guest()
    program = host.succeed("readlink -f $(command -v v)")

    host.succeed("/run/booted-system/specialisation/next/bin/switch-to-configuration test")
    assert host.succeed("readlink -f $(command -v v)") != program
    assert guest() == before, f"{before} became {guest()}"
    host.succeed("v plan")
  '';
}
