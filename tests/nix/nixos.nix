# As much of NixOS as the modules, the templates and the machine tests touch: its options by their names, with what
# NixOS takes for each. What is not here is refused, as NixOS would; what NixOS makes of a value is not known here.
{ lib, pkgs, ... }:
let
  inherit (lib) mkOption types;

  option = type: default: mkOption { inherit type default; };
  flag = option types.bool;
  list = type: option (types.listOf type) [ ];
  lines = option types.lines "";
  text = option types.str;
  sets =
    options:
    option (types.attrsOf (
      types.submodule {
        inherit options;
      }
    )) { };

  unit = types.strMatching "[a-zA-Z0-9@%:_.\\-]+[.](service|socket|device|mount|automount|swap|target|path|timer|scope|slice)";
  units = list unit;
  # What a section of a unit has is systemd's own.
  section = option (types.attrsOf types.anything) { };

  ports = {
    allowedTCPPorts = list types.port;
    allowedUDPPorts = list types.port;
  };
  # Of all kinds of units.
  common = {
    description = option types.singleLineStr "";
    overrideStrategy = option (types.enum [
      "asDropin"
      "asDropinIfExists"
    ]) "asDropinIfExists";
    after = units;
    before = units;
    requires = units;
    wantedBy = units;
    wants = units;
    restartTriggers = list types.unspecified;
  };
  module = list types.str;
  nonEmpty = types.addCheck types.str (text: builtins.match "[ \t\n]*" text == null);
in
{
  options = {
    assertions = list types.unspecified;
    warnings = list types.str;

    boot = {
      growPartition = flag false;
      initrd.availableKernelModules = module;
      initrd.kernelModules = module;
      kernel.sysctl = option (types.attrsOf (
        types.nullOr (
          types.oneOf [
            types.bool
            types.int
            types.str
          ]
        )
      )) { };
      kernelParams = list (types.strMatching ''([^"[:space:]]|"[^"]*")+'');
      loader.efi.canTouchEfiVariables = flag false;
      loader.systemd-boot.configurationLimit = option (types.nullOr types.int) null;
      loader.systemd-boot.enable = flag false;
      loader.timeout = option (types.nullOr types.int) 5;
    };
    documentation.enable = flag true;
    environment = {
      etc = sets {
        mode = text "symlink";
        source = mkOption { type = types.path; };
      };
      pathsToLink = list types.str;
      systemPackages = list types.package;
    };
    fileSystems = sets {
      autoResize = flag false;
      device = option (types.nullOr nonEmpty) null;
      fsType = mkOption { type = nonEmpty; };
      options = option (types.nonEmptyListOf nonEmpty) [ "defaults" ];
    };
    networking = {
      domain = option (types.nullOr types.str) null;
      firewall = ports // {
        extraForwardRules = lines;
        interfaces = sets ports;
      };
      hostName = option (types.strMatching "^$|^[[:alnum:]]([[:alnum:]_-]{0,61}[[:alnum:]])?$") "nixos";
      nftables.enable = flag false;
      useDHCP = flag true;
      useNetworkd = flag false;
    };
    nixpkgs.hostPlatform = text "x86_64-linux";
    security.sudo.extraConfig = lines;
    services = {
      cloud-init = {
        enable = flag false;
        network.enable = flag false;
        settings = option (types.attrsOf types.anything) { };
      };
      logind.settings.Login = section;
      nginx = {
        enable = flag false;
        virtualHosts = sets {
          locations = sets { return = option (types.nullOr (types.either types.str types.int)) null; };
        };
      };
      openssh.enable = flag false;
      openssh.settings.PasswordAuthentication = option (types.nullOr types.bool) true;
      udev.extraRules = lines;
    };
    system = {
      activationScripts = option (types.attrsOf (
        types.either types.str (
          types.submodule {
            options = {
              deps = list types.str;
              supportsDryActivation = flag false;
              text = mkOption { type = types.lines; };
            };
          }
        )
      )) { };
      stateVersion = option (types.strMatching "[0-9]{2}[.][0-9]{2}") "26.11";
      switch.enable = flag true;
    };
    systemd = {
      network.wait-online.anyInterface = flag false;
      packages = list types.package;
      services = sets (
        common
        // {
          environment = option (types.attrsOf (
            types.nullOr (
              types.oneOf [
                types.str
                types.path
                types.package
              ]
            )
          )) { };
          restartIfChanged = flag true;
          serviceConfig = section;
          stopIfChanged = flag true;
        }
      );
      sockets = sets common;
      # A file, its paths, and what each is to be.
      tmpfiles.settings = option (types.attrsOf (
        types.attrsOf (
          types.attrsOf (
            types.submodule {
              options = lib.genAttrs [
                "group"
                "mode"
                "user"
              ] (_: text "-");
            }
          )
        )
      )) { };
    };
    users = {
      groups = sets { members = list (types.passwdEntry types.str); };
      users = sets {
        description = option (types.passwdEntry types.str) "";
        group = text "";
        home = option (types.passwdEntry types.path) "/var/empty";
        isSystemUser = flag false;
      };
    };
    virtualisation.vswitch = {
      enable = flag false;
      package = option types.package pkgs.openvswitch;
    };
  };
}
