use crate::plan::things::{Book, gains, gives};
use crate::plan::{Item, Situation, Work};

/// The items that change a VM or make one, changes first; but whoever gives up an address, a MAC or a
/// port goes before the one that is to have it. Where that goes round in a ring nobody can be first: its
/// items have one turn.
pub(super) fn turns(situation: &Situation, items: &[Item]) -> Vec<Vec<usize>> {
    let holders = Book::of(items.iter().map(|item| gives(situation, item)));
    let before = |(at, item): (usize, &Item)| {
        let holders = gains(item).into_iter().flat_map(|thing| holders.of_one(thing));
        holders.filter(|holder| *holder != at).collect()
    };
    let before: Vec<Vec<usize>> = items.iter().enumerate().map(before).collect();
    let works = |item: &Item| matches!(item.work, Work::Create(_) | Work::Replace(..) | Work::Alter(_));
    let mut order: Vec<usize> = (0..items.len()).filter(|at| works(&items[*at])).collect();
    order.sort_by_key(|at| !matches!(items[*at].work, Work::Alter(_)));
    let mut turns =
        Turns { before: &before, met: vec![None; items.len()], open: Vec::new(), done: Vec::new(), count: 0 };
    for at in order {
        if turns.met[at].is_none() {
            turns.visit(at);
        }
    }
    turns.done
}

/// Tarjan's strongly connected components, which come out in the order that is wanted.
struct Turns<'a> {
    before: &'a [Vec<usize>],
    /// When each was met first.
    met: Vec<Option<usize>>,
    /// Those that were met, and whose turn is not settled.
    open: Vec<usize>,
    done: Vec<Vec<usize>>,
    count: usize,
}

impl Turns<'_> {
    /// The earliest that can be reached from it of those that are open.
    fn visit(&mut self, at: usize) -> usize {
        let own = self.count;
        (self.met[at], self.count) = (Some(own), own + 1);
        self.open.push(at);
        let mut earliest = own;
        let before = self.before;
        for next in &before[at] {
            earliest = earliest.min(match self.met[*next] {
                None => self.visit(*next),
                Some(met) if self.open.contains(next) => met,
                Some(_) => own,
            });
        }
        if earliest == own {
            let from = self.open.iter().rposition(|open| *open == at).unwrap_or_default();
            let mut turn = self.open.split_off(from);
            turn.sort_unstable();
            self.done.push(turn);
        }
        earliest
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use proptest::option;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::config::{Config, of_text};
    use crate::plan::model::Model;
    use crate::plan::things::{self, Thing};
    use crate::plan::{Need, Plan, Wishes};
    use crate::spec::Name;

    /// Whether it runs, which of what there is for all it is told, and which image it has.
    type Told = (bool, Option<usize>, Option<usize>, &'static str);

    /// What VMs are told, each something else, or nothing.
    fn told(vms: usize) -> impl Strategy<Value = Vec<Told>> {
        let order = || Just((0..vms).collect::<Vec<_>>()).prop_shuffle();
        let one = || {
            (
                any::<bool>(),
                option::weighted(0.8, Just(())),
                option::weighted(0.8, Just(())),
                select(vec!["a", "a", "b"]),
            )
        };
        (order(), order(), proptest::collection::vec(one(), vms)).prop_map(|(addresses, macs, vms)| {
            let told = vms.into_iter().zip(addresses).zip(macs);
            told.map(|(((runs, address, mac, image), at), nth)| (runs, address.map(|()| at), mac.map(|()| nth), image))
                .collect()
        })
    }

    fn config(vms: &[Told]) -> Config {
        let mut text = "
            network = [{ name = 'main', type = 'bridge', bridge = 'vbr0', subnet = '10.44.0.0/24' }]
            template.vm = [{ name = 'xs', vcpu = 1, vram = 1, kernel = '/k' }]\n"
            .to_owned();
        for (number, (runs, address, mac, image)) in vms.iter().enumerate() {
            // Those that are given without being named are among them.
            let address = address.map(|at| format!(", address = '10.44.0.{}'", 2 + at)).unwrap_or_default();
            let mac = mac.map(|nth| format!(", mac = '02:00:00:00:00:{nth:02}'")).unwrap_or_default();
            text += &format!(
                "[[vm]]\nname = 'vm{number}'\ntemplate = 'xs'\nrunning = {runs}\nnet = [{{ name = 'main'{address}{mac} }}]
                 disk = [{{ name = 'os', path = '/{image}' }}]\n"
            );
        }
        of_text(&text).expect(&text)
    }

    /// Every address and every MAC of each VM.
    fn held(model: &Model) -> Vec<Thing<'_>> {
        model.situation.seen.iter().flat_map(|seen| things::of(&seen.record.spec)).collect()
    }

    fn is_unique(model: &Model) -> bool {
        let held = held(model);
        held.iter().collect::<HashSet<_>>().len() == held.len()
    }

    /// Does a plan as `apply` does, and looks that nobody ever has what another has.
    fn apply(model: &mut Model, plan: &Plan) -> Result<(), TestCaseError> {
        let turns = turns(&model.situation, &plan.items);
        let places: BTreeSet<usize> = turns.iter().flatten().copied().collect();
        prop_assert_eq!(places.len(), turns.iter().map(Vec::len).sum::<usize>(), "each once: {:?}", &turns);
        for turn in &turns {
            let items = turn.iter().map(|at| plan.items[*at].clone()).collect();
            model.apply(&Plan { items });
            prop_assert!(is_unique(model), "after {turn:?} of {turns:?}: {plan:#?}");
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn nobody_has_what_another_has(
            (before, after) in (1..6_usize).prop_flat_map(|vms| (told(vms), told(vms))),
        ) {
            let mut model = Model::new(config(&before));
            let plan = model.plan(&Wishes::default());
            apply(&mut model, &plan)?;
            model.configure(config(&after));
            let mut wishes = Wishes::default();
            for restart in [false, true] {
                wishes.restart = restart;
                let plan = model.plan(&wishes);
                apply(&mut model, &plan)?;
                let plan = model.plan(&wishes);
                prop_assert!(plan.lines().all(|(_, change)| change.needs.is_some()), "{plan:#?}");
            }
            let plan = model.plan(&wishes);
            let replaced = |change: &crate::plan::Change| match &change.needs {
                Some(Need::Replace(vm)) => Some(vm.clone()),
                _ => None,
            };
            wishes.replace = plan.lines().filter_map(|(_, change)| replaced(change)).collect::<BTreeSet<Name>>();
            let plan = model.plan(&wishes);
            apply(&mut model, &plan)?;
            let plan = model.plan(&Wishes::default());
            prop_assert!(plan.items.is_empty(), "{plan:#?}");
            for (number, (_, address, mac, _)) in after.iter().enumerate() {
                let nic = model.seen(&format!("vm{number}")).record.spec.nics[0].clone();
                let ip = nic.address.map(|address| address.ip.addr().octets()[3]);
                prop_assert!(address.is_none_or(|at| ip.map(usize::from) == Some(2 + at)));
                let mac = mac.map(|nth| format!("02:00:00:00:00:{nth:02}"));
                prop_assert!(mac.is_none_or(|mac| nic.mac.to_string() == mac));
            }
        }
    }

    #[test]
    fn a_ring_has_one_turn_and_comes_before_who_waits_for_it() {
        let told = |numbers: &[usize]| numbers.iter().map(|at| (false, Some(*at), None, "a")).collect::<Vec<Told>>();
        let mut model = Model::new(config(&told(&[0, 1, 2, 3, 4])));
        model.apply(&model.plan(&Wishes::default()));
        for (after, expected) in [
            (vec![1, 2, 0, 4, 3], vec![vec![0, 1, 2], vec![3, 4]]),
            (vec![1, 2, 3, 4, 5], vec![vec![4], vec![3], vec![2], vec![1], vec![0]]),
            (vec![1, 0, 5, 2, 3], vec![vec![0, 1], vec![2], vec![3], vec![4]]),
        ] {
            model.configure(config(&told(&after)));
            assert_eq!(turns(&model.situation, &model.plan(&Wishes::default()).items), expected, "{after:?}");
        }
    }
    #[test]
    fn ports_are_in_each_others_way_where_both_would_listen_at_one_place() {
        let config = |ports: [&str; 2]| {
            let vm = |(name, ports): (&str, &str)| {
                format!("{{ name = '{name}', template = 'xs', net = [{{ name = 'slirp', ports = [{ports}] }}] }}")
            };
            let vms: Vec<String> = ["a", "b"].into_iter().zip(ports).map(vm).collect();
            let text = format!(
                "network = [{{ name = 'slirp', type = 'user' }}]
                 template.vm = [{{ name = 'xs', vcpu = 1, vram = 1, disk = [{{ name = 'os', path = '/a' }}] }}]
                 vm = [{}]",
                vms.join(", ")
            );
            of_text(&text).expect(&text)
        };
        let (here, there, all) = ("'127.0.0.1:80:80'", "'10.0.0.5:80:80'", "'80:80'");
        for (before, after, expected) in [
            ([here, there], [there, here], vec![vec![0, 1]]),
            (["", here], [here, ""], vec![vec![1], vec![0]]),
            (["", here], [all, ""], vec![vec![1], vec![0]]),
            (["", all], [here, ""], vec![vec![1], vec![0]]),
            (["", here], [there, ""], vec![vec![0], vec![1]]),
        ] {
            let mut model = Model::new(config(before));
            model.apply(&model.plan(&Wishes::default()));
            model.configure(config(after));
            let plan = model.plan(&Wishes { restart: true, ..Wishes::default() });
            assert_eq!(turns(&model.situation, &plan.items), expected, "{before:?} {after:?}");
        }
    }
}
