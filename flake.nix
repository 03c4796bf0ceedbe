{
  description = "Turns a template in a TOML file into a running, reachable virtual machine";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      eachSystem = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});

      virshle =
        {
          lib,
          stdenv,
          rustPlatform,
          installShellFiles,
          coreutils,
          util-linux,
        }:
        let
          inherit (lib.importTOML ./Cargo.toml) package;
        in
        rustPlatform.buildRustPackage {
          pname = package.name;
          inherit (package) version;

          src = lib.fileset.toSource {
            root = ./.;
            fileset = lib.fileset.unions [
              ./Cargo.toml
              ./Cargo.lock
              ./src
              ./tests
              ./templates
              ./packaging
              ./public
            ];
          };
          cargoLock.lockFile = ./Cargo.lock;

          nativeBuildInputs = [ installShellFiles ];

          # The others start virtual machines and switches: `make test`.
          cargoTestFlags = [ "--lib" ];

          postInstall = ''
            ln -s v $out/bin/virshle
            install -Dm644 -t $out/lib/systemd/system packaging/systemd/*
            install -Dm644 -t $out/lib/sysusers.d packaging/sysusers.d/*
            install -Dm644 -t $out/lib/tmpfiles.d packaging/tmpfiles.d/*
            substituteInPlace $out/lib/systemd/system/*.{service,socket} \
              --replace-quiet /usr/bin/v $out/bin/v \
              --replace-quiet ExecStartPre=install ExecStartPre=${coreutils}/bin/install \
              --replace-quiet /bin/kill ${util-linux}/bin/kill
          ''
          + lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
            installShellCompletion --cmd v \
              --bash <($out/bin/v completions bash) \
              --zsh <($out/bin/v completions zsh) \
              --fish <($out/bin/v completions fish)
            $out/bin/v man --dir man
            installManPage man/*
          '';

          meta = {
            inherit (package) description;
            license = lib.licenses.mit;
            mainProgram = "v";
            platforms = lib.platforms.linux;
          };
        };
    in
    {
      packages = eachSystem (pkgs: {
        default = pkgs.callPackage virshle { };
      });

      overlays.default = final: _: {
        virshle = final.callPackage virshle { };
      };

      nixosModules.default =
        { lib, pkgs, ... }:
        {
          imports = [ ./modules ];
          services.virshle.package =
            lib.mkDefault
              self.packages.${pkgs.stdenv.hostPlatform.system}.default;
        };

      checks = eachSystem (pkgs: {
        package = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
      });

      # What `make demo` and `make test` run; see tests/packages for the same on Debian.
      devShells = eachSystem (pkgs: {
        default = pkgs.mkShell {
          packages = with pkgs; [
            cargo
            clippy
            rustc
            rustfmt

            # hypervisors and switch
            cloud-hypervisor
            openvswitch-dpdk
            qemu_kvm

            # networks
            dnsmasq
            nftables

            # the guest image
            apt
            cpio
            debian-archive-keyring
            dosfstools
            dpkg
            e2fsprogs
            fakeroot
            kmod
            mmdebstrap
            mtools
            util-linux
            zstd

            # the suite
            btrfs-progs
            iproute2
            iputils
            openssh
            python3
            sqlite
            xfsprogs
          ];
        };
      });

      formatter = eachSystem (pkgs: pkgs.nixfmt-tree);
    };
}
