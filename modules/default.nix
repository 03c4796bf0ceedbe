# Virshle on NixOS: the program, what it runs, and its configuration, checked when the system is built.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.virshle;
  toml = pkgs.formats.toml { };

  # A mistake in the settings stops the build of the system, not the start of a VM.
  configFile =
    pkgs.runCommand "virshle-config.toml" { rendered = toml.generate "config.toml" cfg.settings; }
      ''
        ${lib.getExe cfg.package} --root "$PWD" config check "$rendered"
        cp "$rendered" "$out"
      '';
in
{
  options.services.virshle = {
    enable = lib.mkEnableOption ("Virshle, a manager of virtual machines. Each VM is a unit of systemd; "
      + "members of the group `virshle` use the host's VMs without being root");

    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.virshle;
      defaultText = lib.literalExpression "pkgs.virshle";
      example = lib.literalExpression "inputs.virshle.packages.\${pkgs.stdenv.hostPlatform.system}.default";
      description = "The package that provides {command}`v`.";
    };

    settings = lib.mkOption {
      inherit (toml) type;
      default = { };
      example = lib.literalExpression ''
        {
          network = [
            {
              name = "lan";
              type = "bridge";
              bridge = "br0";
              create = true;
              subnet = "10.44.0.0/24";
            }
          ];
          template.vm = [
            {
              name = "xs";
              vcpu = 1;
              vram = "2G";
              disk = [
                {
                  name = "os";
                  path = "/srv/images/debian-12.raw";
                  size = "20G";
                }
              ];
              net = [ { name = "lan"; } ];
            }
          ];
        }
      '';
      description = ''
        The content of {file}`/etc/virshle/config.toml`: the node, its networks, its images, and the
        templates that VMs are made from. {command}`v config schema` prints the grammar.
        Files in {file}`/etc/virshle/config.d` are laid over it.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    environment = {
      systemPackages = [
        cfg.package
        pkgs.cloud-hypervisor
        pkgs.qemu_kvm
        # Networks: bridges, the firewall, names and addresses.
        pkgs.iproute2
        pkgs.nftables
        pkgs.dnsmasq
      ]
      ++ lib.optional pkgs.stdenv.hostPlatform.isx86_64 pkgs.OVMF-cloud-hypervisor.fd;

      # The firmware of both. A VM remembers the path, and one below /run/current-system
      # outlives garbage collection.
      pathsToLink = [
        "/FV"
        "/share/qemu"
      ];

      etc."virshle/config.toml" = lib.mkIf (cfg.settings != { }) { source = configFile; };
    };

    # Hypervisors pass through both to their own VM's folders; nobody else may list or read them.
    systemd.tmpfiles.settings."10-virshle" = {
      "/var/lib/virshle".d = {
        mode = "0711";
        user = "root";
        group = "root";
      };
      "/run/virshle".d = {
        mode = "0711";
        user = "root";
        group = "root";
      };
    };

    # The package's own: virshle-vm@.service and those beside it.
    systemd.packages = [ cfg.package ];
    systemd.services =
      let
        unit = {
          overrideStrategy = "asDropin";
          # A new system leaves the guests of the old one running.
          restartIfChanged = false;
          stopIfChanged = false;
          # Hypervisors and switches where the config names none.
          environment.PATH = lib.mkForce "/run/current-system/sw/bin";
        };
      in
      {
        "virshle-vm@" = unit;
        "virshle-network@" = unit;
        virshle-shutdown = unit;
        virshle-autostart = unit // {
          wantedBy = [ "multi-user.target" ];
        };
        "virshle@" = unit;
      };
    systemd.sockets.virshle = {
      overrideStrategy = "asDropin";
      wantedBy = [ "sockets.target" ];
    };

    # Who may use the host's VMs, and whom their hypervisors run as.
    users = {
      groups.virshle = { };
      groups.virshle-vm = { };
      users.virshle-vm = {
        description = "Virshle's virtual machines";
        isSystemUser = true;
        group = "virshle-vm";
        home = "/var/empty";
      };
    };
  };
}
