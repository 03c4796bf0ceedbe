//! Beside other people's rules: theirs stay as they are, and what they stop is said.

use libtest_mimic::Trial;
use tempfile::TempDir;

use super::atomic::program;
use super::child::run;
use super::lab::{self, Guest, apply, as_host, make, network, nft, nft_reads, outside};
use crate::trials;
use crate::world::Outcome;

pub fn trials() -> Vec<Trial> {
    trials![other_tables_stay, what_is_in_the_way, a_remedy_helps, a_fake_firewalld, no_nft, what_nft_refuses]
}

/// As `iptables` (through nftables), firewalld, ufw, Docker and NixOS lay their chains out.
const DOCKER: &str = "
table ip filter {
	chain DOCKER-USER {
		counter return
	}
	chain DOCKER-FORWARD {
		iifname \"docker0\" accept
	}
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
		counter jump DOCKER-USER
		counter jump DOCKER-FORWARD
	}
}";
const UFW: &str = "
table ip filter {
	chain ufw-user-input {
	}
	chain ufw-before-input {
		iifname \"lo\" accept
		jump ufw-user-input
	}
	chain INPUT {
		type filter hook input priority filter; policy drop;
		jump ufw-before-input
	}
	chain ufw-before-forward {
		ct state established,related accept
	}
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
		jump ufw-before-forward
	}
}";
const NIXOS: &str = "
table inet nixos-fw {
	chain rpfilter {
		type filter hook prerouting priority mangle + 10; policy drop;
		accept
	}
	chain input {
		type filter hook input priority filter; policy drop;
		iifname { \"lo\", \"tailscale0\" } accept
		ct state vmap { invalid : drop, established : accept, related : accept, new : jump input-allow }
	}
	chain input-allow {
		tcp dport 22 accept
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state vmap { invalid : drop, established : accept, related : accept, new : jump forward-allow }
	}
	chain forward-allow {
		ct status dnat accept
	}
}";
const NIXOS_IPTABLES: &str = "
table ip6 filter {
	chain nixos-fw-log-refuse {
		counter drop
	}
	chain nixos-fw {
		iifname \"lo\" counter accept
		counter jump nixos-fw-log-refuse
	}
	chain INPUT {
		type filter hook input priority filter; policy accept;
		counter jump nixos-fw
	}
}";
const OWN: &str = "
table inet filter {
	chain in {
		type filter hook input priority filter; policy drop;
		iifname != \"br44\" accept
	}
	chain through {
		type filter hook forward priority filter; policy drop;
	}
	chain out {
		type filter hook output priority filter; policy accept;
	}
}";

fn other_tables_stay() -> Outcome {
    as_host(|| {
        for rules in [DOCKER, NIXOS, NIXOS_IPTABLES, OWN] {
            nft_reads(rules, &[]);
        }
        nft_reads("table bridge virshle {\n\tset s {\n\t\ttype ifname\n\t\telements = { \"v1n0\" }\n\t}\n}\n", &[]);
        nft_reads("table ip virshle_0badcafe {\n\tchain c {\n\t\tcounter\n\t}\n}\n", &[]);
        // With handles and counters.
        let before = nft(&["-a", "list", "ruleset"]);
        let nat = network("main", 44);
        let port = lab::port(&nat, 2, Some(Default::default()));
        for _ in 0..3 {
            apply(&[&nat], &[&port]);
            let now = nft(&["-a", "list", "ruleset"]);
            assert!(now.starts_with(&before), "{now}");
            assert!(now[before.len()..].starts_with("table inet virshle_0badcafe"), "{now}");
        }
        apply(&[], &[]);
        assert_eq!(nft(&["-a", "list", "ruleset"]), before);
    })
}

fn what_is_in_the_way() -> Outcome {
    let rows: [(&str, &[&str]); 6] = [
        ("", &[]),
        (
            DOCKER,
            &[
                "Docker keeps guests from going out, and others from their forwards on `br44`: `iptables -I DOCKER-USER -i br44 -j ACCEPT` and `iptables -I DOCKER-USER -o br44 -j ACCEPT`",
            ],
        ),
        (
            UFW,
            &[
                "ufw keeps guests from this host's DHCP and DNS on `br44`: `ufw allow in on br44`",
                "ufw keeps guests from going out, and others from their forwards on `br44`: `ufw route allow in on br44` and `ufw route allow out on br44`",
            ],
        ),
        (
            NIXOS,
            &[
                "the NixOS firewall keeps guests from this host's DHCP and DNS on `br44`: set `networking.firewall.trustedInterfaces = [ \"br44\" ];`",
                "the NixOS firewall keeps guests from going out on `br44`: set `networking.firewall.extraForwardRules = ''iifname \"br44\" accept'';`",
            ],
        ),
        (
            NIXOS_IPTABLES,
            &[
                "the NixOS firewall keeps guests from this host's DHCP and DNS on `br44`: set `networking.firewall.trustedInterfaces = [ \"br44\" ];`",
            ],
        ),
        (
            OWN,
            &[
                "the chain `inet filter in` keeps guests from this host's DHCP and DNS on `br44`: `nft insert rule inet filter in iifname br44 accept`",
                "the chain `inet filter through` keeps guests from going out, and others from their forwards on `br44`: `nft insert rule inet filter through iifname br44 accept` and `nft insert rule inet filter through oifname br44 accept`",
            ],
        ),
    ];
    as_host(move || {
        let nat = network("main", 44);
        apply(&[&nat], &[&lab::port(&nat, 2, Some(Default::default()))]);
        for (rules, expected) in rows {
            nft_reads(rules, &[]);
            assert_eq!(run("obstacles", None).expect("an answer"), expected.join("\n"), "{rules}");
            for table in nft(&["list", "tables"]).lines().filter(|table| !table.contains(lab::TABLE)) {
                nft(&[&format!("delete {table}")]);
            }
        }
        // What somebody has seen to is in nobody's way.
        for (rules, with) in [
            (NIXOS, NIXOS.replace("\"tailscale0\"", "\"br44\"").replace("ct status dnat", "iifname \"br44\"")),
            (NIXOS_IPTABLES, NIXOS_IPTABLES.replace("\"lo\"", "\"br44\"")),
            (DOCKER, DOCKER.replace("counter return", "iifname \"br*\" counter accept")),
        ] {
            assert_ne!(rules, with);
            nft_reads(&with, &[]);
            assert_eq!(run("obstacles", None).expect("an answer"), "", "{with}");
            for table in nft(&["list", "tables"]).lines().filter(|table| !table.contains(lab::TABLE)) {
                nft(&[&format!("delete {table}")]);
            }
        }
    })
}

/// What the sentence says helps, as far as it is a command of `nft`.
fn a_remedy_helps() -> Outcome {
    as_host(|| {
        let nat = network("main", 44);
        make(&nat);
        let (guest, world) = (Guest::new(&nat, 2, None), outside(1));
        [53, 80].into_iter().for_each(lab::serve);
        world.serve(80);
        apply(&[&nat], &[&guest.port]);
        nft_reads(OWN, &[]);
        assert_eq!((guest.node.udp("10.44.0.1:53"), guest.node.tcp("198.51.1.2:80")), (None, None));
        let found = run("obstacles", None).expect("an answer");
        for command in found.split('`').filter_map(|part| part.strip_prefix("nft ")) {
            nft(&[command]);
        }
        assert!(guest.node.udp("10.44.0.1:53").is_some() && guest.node.tcp("198.51.1.2:80").is_some(), "{found}");
        assert_eq!(run("obstacles", None).expect("an answer"), "");
    })
}

/// Not the real one: a script that keeps the zones in files and notes what it is asked.
fn a_fake_firewalld() -> Outcome {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().to_owned();
    as_host(move || {
        let calls = || std::fs::read_to_string(path.join("calls")).unwrap_or_default();
        let at = path.display();
        let fake = format!(
            "cd {at} || exit 99
echo \"$*\" >> calls
case \"$*\" in
--state) test -e running || exit 252; echo running;;
--get-zone-of-interface=br44) test -s zone || {{ echo 'no zone'; exit 2; }}; cat zone;;
'--permanent --get-zone-of-interface=br44') test -s permanent || {{ echo 'no zone'; exit 2; }}; cat permanent;;
'--zone=trusted --add-interface=br44') test -e broken && {{ echo 'Error: INVALID_ZONE' >&2; exit 112; }}; echo trusted > zone; echo success;;
'--zone=trusted --remove-interface=br44') test -s zone || exit 1; rm zone; echo success;;
*) exit 98;;
esac"
        );
        let asks = |work: &str| run(work, Some(&path));
        // None is installed; then none runs.
        let empty = TempDir::new().expect("a folder");
        assert_eq!(run("admit", Some(empty.path())).expect("nothing to do"), "None");
        program(&path, "firewall-cmd", &fake);
        assert_eq!(asks("admit").expect("nothing to do"), "None");
        asks("dismiss trusted").expect("nothing to do");
        assert_eq!(calls(), "--state\n--state\n");

        std::fs::write(path.join("running"), "").expect("a file");
        assert_eq!(asks("admit").expect("done"), "Some(\"trusted\")");
        assert_eq!(asks("admit").expect("done already"), "Some(\"trusted\")");
        assert!(!calls().contains("--permanent --zone"), "nothing for ever: {}", calls());
        assert_eq!(calls().matches("--add-interface").count(), 1);
        asks("dismiss trusted").expect("done");
        asks("dismiss trusted").expect("done already");
        assert_eq!(calls().matches("--remove-interface").count(), 1);

        // Its owner has said where it belongs.
        for (zone, permanent) in [("home", ""), ("trusted", "trusted")] {
            std::fs::write(path.join("zone"), zone).expect("a file");
            std::fs::write(path.join("permanent"), permanent).expect("a file");
            assert_eq!(asks("admit").expect("left alone"), "None", "{zone}");
        }
        std::fs::remove_file(path.join("zone")).expect("it is there");
        std::fs::write(path.join("broken"), "").expect("a file");
        let refused = asks("admit").expect_err("it refuses");
        assert!(
            refused.contains("cannot make firewalld trust `br44`") && refused.contains("INVALID_ZONE"),
            "{refused}"
        );
    })
}

fn no_nft() -> Outcome {
    as_host(|| {
        let dir = TempDir::new().expect("a folder");
        let mut child = super::child::command("apply new", None);
        let output = child.env("PATH", dir.path()).output().expect("it runs");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && words.contains("package `nftables`"), "{words}");
    })
}

fn what_nft_refuses() -> Outcome {
    let dir = TempDir::new().expect("a folder");
    let real = crate::world::need_program("nft")?;
    let path = dir.path().to_owned();
    as_host(move || {
        // A line that this `nft` does not know, as an older one would not know one of ours.
        let add = "{ cat; echo 'table inet x { chain c { nonsense; }; }'; }";
        program(&path, "nft", &format!("{add} | {} \"$@\"", real.display()));
        run("apply new", Some(&path)).expect_err("refused");
        assert_eq!(nft(&["list", "ruleset"]), "", "nothing of it");
        let wrong = format!("sed 's/chain forward /chain arp /' | {} \"$@\"", real.display());
        program(&path, "nft", &wrong);
        let words = run("apply new", Some(&path)).expect_err("refused");
        assert!(words.contains("`nft` refuses the line `chain forward {`: syntax error, unexpected arp"), "{words}");
        assert_eq!(nft(&["list", "ruleset"]), "", "nothing of it");
    })
}
