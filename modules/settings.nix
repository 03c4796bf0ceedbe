# /etc/virshle/config.toml: what the options come to, with whatever else `settings` says.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib)
    attrValues
    filterAttrs
    mapAttrsToList
    mkIf
    mkOption
    optional
    optionalAttrs
    ;
  cfg = config.services.virshle;
  toml = pkgs.formats.toml { };
  inherit (import ./lib/render.nix { inherit lib; }) machine table;

  node = filterAttrs (_: value: value != { }) (
    table (
      cfg.node
      // {
        cloudHypervisor = table cfg.node.cloudHypervisor;
        qemu = table cfg.node.qemu;
        user = if cfg.user == "virshle-vm" then null else cfg.user;
      }
    )
  );

  userFile =
    vm:
    toml.generate "${vm.name}-users.toml" {
      user = mapAttrsToList (
        name: user:
        table {
          inherit name;
          inherit (user) sudo shell;
        }
        // {
          ssh.authorized_keys = user.authorizedKeys;
        }
      ) vm.users;
    };

  declared =
    vm:
    let
      files = optional (vm.users != { }) "${userFile vm}" ++ vm.userData;
    in
    machine (
      removeAttrs vm [
        "userData"
        "users"
      ]
    )
    // optionalAttrs (files != [ ]) { user-data = files; };

  lists = filterAttrs (_: value: value != [ ]) {
    network = map table (attrValues cfg.networks);
    image = map table (attrValues cfg.images);
    vm = map declared (attrValues cfg.vms);
  };
  templates = map machine (attrValues cfg.templates);
in
{
  options.services.virshle = {
    settings = mkOption {
      inherit (toml) type;
      default = { };
      example = {
        network = [
          {
            name = "lan";
            type = "bridge";
            bridge = "br0";
            subnet = "10.44.0.0/24";
          }
        ];
      };
      description = ''
        The content of {file}`/etc/virshle/config.toml`, with the keys of the TOML as they are. The other options
        write into it, and what is said here is laid beside: for what they have no word for. {command}`v config schema`
        prints the grammar. Files in {file}`/etc/virshle/config.d` are laid over it. It is in the Nix store, which
        everyone reads: it holds no secrets.
      '';
    };

    configFile = mkOption {
      type = lib.types.path;
      internal = true;
      readOnly = true;
      # A mistake in the settings stops the build of the system, not the start of a VM.
      default =
        pkgs.runCommand "virshle-config.toml" { rendered = toml.generate "config.toml" cfg.settings; }
          ''
            ${lib.getExe cfg.package} --root "$PWD" config check "$rendered"
            cp "$rendered" "$out"
          '';
      defaultText = lib.literalExpression "the settings, checked";
      example = lib.literalExpression "config.services.virshle.configFile";
      description = "The settings as a file, checked by {command}`v config check`.";
    };
  };

  config = mkIf cfg.enable {
    services.virshle.settings =
      lists
      // optionalAttrs (node != { }) { inherit node; }
      // optionalAttrs (templates != [ ]) { template.vm = templates; };

    # One that is written by hand stays, where nothing is said here.
    environment.etc."virshle/config.toml" = mkIf (cfg.settings != { }) { source = cfg.configFile; };
  };
}
