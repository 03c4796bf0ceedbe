# `[[vm]]`: the VMs that are to exist.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  machine = import ./machine.nix { inherit lib; };
  words = import ../lib/types.nix { inherit lib; };
  inherit (words) maybe;

  user = {
    options = {
      authorizedKeys = mkOption {
        type = types.listOf types.singleLineStr;
        default = [ ];
        example = [ "ssh-ed25519 AAAAC3Nza… alice@desk" ];
        description = "The public keys that log in as the user.";
      };
      sudo =
        maybe types.bool false
          "Whether the user may become root without a password; so it is when null.";
      shell = maybe types.str "/bin/bash" "The login shell; the distribution's when null.";
    };
  };

  vm =
    { name, ... }:
    {
      options = machine.options // {
        name = words.named name "db1" "Its name.";
        template = mkOption {
          type = words.name;
          example = "xs";
          description = "The name of the template that it is made from. What the VM itself says takes the place of what the template says.";
        };
        running = maybe (types.either types.bool (types.enum [ "leave" ])) "leave" ''
          Whether it runs; it does when null. `"leave"`: that is up to whoever starts and stops it.
        '';
        onRemove =
          maybe
            (types.enum [
              "stop"
              "keep"
              "delete"
            ])
            "keep"
            ''
              What becomes of it when it is declared no more: it is shut down and kept, which is so when null; it runs on;
              or it is deleted with its disks.
            '';
        vcpu = maybe machine.vcpu 4 "How many processors, if not as many as the template says.";
        vram = maybe machine.vram "6G" "How much memory in whole MiB, if not as much as the template says.";
        users = mkOption {
          type = types.attrsOf (types.submodule user);
          default = { };
          example = {
            alice.authorizedKeys = [ "ssh-ed25519 AAAAC3Nza… alice@desk" ];
          };
          description = ''
            Who may log into the guest. They go into a file in the Nix store, which everyone on the host reads: public
            keys belong here, and a password's hash into a file that `userData` names.
          '';
        };
        userData = mkOption {
          type = types.listOf words.file;
          default = [ ];
          example = [ "/run/secrets/db1.toml" ];
          description = ''
            Files with users and keys, or with raw cloud-init user data, for its first boot. They are texts, not paths
            of Nix, so that no secret is copied into the store; each is on the host before the VM is made.
          '';
        };
      };
    };
in
{
  options.services.virshle.vms = mkOption {
    type = types.attrsOf (types.submodule vm);
    default = { };
    example = {
      db1 = {
        template = "xs";
        vram = "6G";
        labels.role = "db";
        users.alice.authorizedKeys = [ "ssh-ed25519 AAAAC3Nza… alice@desk" ];
      };
    };
    description = ''
      The VMs that are to exist. A switch makes, changes, starts and stops them as far as no guest that runs is
      disturbed; VMs that are not declared are never touched.
    '';
  };
}
