# NixOS as a guest of Virshle: import this into the guest's own configuration. `lib.mkGuestImage` has it already.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkDefault;
  console = if pkgs.stdenv.hostPlatform.isAarch64 then "ttyAMA0" else "ttyS0";
in
{
  imports = [ ./seed.nix ];

  config = {
    boot = {
      # A disk is made from an image, and no variable of the firmware comes with it: the loader has to lie where
      # every firmware looks (EFI/BOOT).
      loader = {
        systemd-boot.enable = mkDefault true;
        systemd-boot.configurationLimit = mkDefault 5;
        efi.canTouchEfiVariables = mkDefault false;
        timeout = mkDefault 1;
      };

      initrd.availableKernelModules = [
        "virtio_blk"
        "virtio_net"
        "virtio_pci"
        "virtio_rng"
      ];
      # systemd looks for the line to the host before anything else loads its driver, and serves ssh on it if it finds
      # it: `v vm ssh` needs no network then.
      initrd.kernelModules = [ "vmw_vsock_virtio_transport" ];

      kernelParams = [
        # `v vm console`.
        "console=${console}"
        # Memory that is added while the guest runs is used at once.
        "memhp_default_state=online"
      ];

      growPartition = mkDefault true;
    };

    fileSystems = {
      "/" = {
        device = mkDefault "/dev/disk/by-label/nixos";
        fsType = mkDefault "ext4";
        autoResize = mkDefault (config.fileSystems."/".fsType == "ext4");
      };
      "/boot" = {
        device = mkDefault "/dev/disk/by-label/ESP";
        fsType = mkDefault "vfat";
        options = mkDefault [ "umask=0077" ];
      };
    };

    services = {
      # Processors that are added are used at once too.
      udev.extraRules = ''
        ACTION=="add", SUBSYSTEM=="cpu", ATTR{online}=="0", ATTR{online}="1"
      '';
      # `v vm stop` presses the power button.
      logind.settings.Login.HandlePowerKey = mkDefault "poweroff";
      openssh = {
        enable = mkDefault true;
        settings.PasswordAuthentication = mkDefault false;
      };
    };
  };
}
