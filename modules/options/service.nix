# What the service itself is: the program, its parts, and who may use it.
{ lib, pkgs, ... }:
let
  inherit (lib) literalExpression mkOption types;
  words = import ../lib/types.nix { inherit lib; };
in
{
  options.services.virshle = {
    enable = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = ''
        Whether Virshle manages virtual machines on this host. Each VM is a unit of systemd; members of
        the group `virshle` use the host's VMs without being root.
      '';
    };

    package = mkOption {
      type = types.package;
      default = pkgs.virshle;
      defaultText = literalExpression "pkgs.virshle";
      example = literalExpression "inputs.virshle.packages.\${pkgs.stdenv.hostPlatform.system}.default";
      description = "The package that provides {command}`v` and its units.";
    };

    hypervisors = {
      cloudHypervisor = {
        enable = mkOption {
          type = types.bool;
          default = true;
          example = false;
          description = "Whether cloud-hypervisor is there to run VMs.";
        };
        package = mkOption {
          type = types.package;
          default = pkgs.cloud-hypervisor;
          defaultText = literalExpression "pkgs.cloud-hypervisor";
          example = literalExpression "pkgs.cloud-hypervisor";
          description = "The package that provides {command}`cloud-hypervisor`. Guests that run keep the program they run in.";
        };
      };
      firmware.package = mkOption {
        type = types.nullOr types.package;
        default = if pkgs.stdenv.hostPlatform.isx86_64 then pkgs.OVMF-cloud-hypervisor.fd else null;
        defaultText = literalExpression "pkgs.OVMF-cloud-hypervisor.fd on x86_64, null elsewhere";
        example = literalExpression "pkgs.OVMF-cloud-hypervisor.fd";
        description = ''
          The package that provides {file}`FV/CLOUDHV.fd`, which cloud-hypervisor boots disks with; null: none,
          and templates name a `kernel` or a `firmware`.
        '';
      };
      qemu = {
        enable = mkOption {
          type = types.bool;
          default = true;
          example = false;
          description = "Whether QEMU is there to run VMs.";
        };
        package = mkOption {
          type = types.package;
          default = pkgs.qemu_kvm;
          defaultText = literalExpression "pkgs.qemu_kvm";
          example = literalExpression "pkgs.qemu";
          description = "The package that provides QEMU and its firmware. Guests that run keep the program they run in.";
        };
      };
    };

    user = mkOption {
      type = types.strMatching "[a-z_][a-z0-9_-]{0,30}";
      default = "virshle-vm";
      example = "vmm";
      description = ''
        The user that hypervisors run as. `virshle-vm` is made by this module, any other by you. It must
        never be a member of the group `virshle`.
      '';
    };

    group = mkOption {
      type = types.strMatching "[a-z_][a-z0-9_-]{0,30}";
      default = "virshle-vm";
      example = "vmm";
      description = "The group of the user `virshle-vm`, where this module makes that user.";
    };

    members = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "alice" ];
      description = ''
        Users who are put into the group `virshle`: they use the host's VMs, and can do to the host what its
        templates allow.
      '';
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = ''
        Whether the host's firewall lets through what Virshle serves: DHCP and DNS on the bridges that it keeps,
        what guests behind them send out, and the `ports` of NICs in networks of the type `user`.
      '';
    };

    memoryLimit = mkOption {
      type = types.nullOr words.size;
      default = null;
      example = "56G";
      description = ''
        The most memory that the declared VMs may come to together, each counted with its `vramMax` or else its
        `vram`, and not counted where `running = false`. Above it the evaluation fails; null: no limit.
      '';
    };

    apply.enable = mkOption {
      type = types.bool;
      default = true;
      example = false;
      description = ''
        Whether a switch to a new system, and the start of the host, bring the declared VMs to what they should
        be ({command}`v apply --yes`). What needs a guest's restart or would lose data waits, and is told.
        {command}`nixos-rebuild dry-activate` prints the plan.
      '';
    };
  };
}
