//! The least that has to be moved for an order of touches, whoever decides what leaves.

/// Whole objects that come and that leave when the farthest next use leaves first, with room for
/// `room` of them; each is written each time. `touches` are the objects in order. What is there at
/// the end stays.
pub(crate) fn least_moves(touches: &[usize], room: usize) -> (u64, u64) {
    let objects = touches.iter().max().map_or(0, |most| most + 1);
    let next = next_uses(touches, objects);
    let mut there: Vec<Option<usize>> = vec![None; objects];
    let (mut held, mut came, mut left) = (0, 0, 0);
    for (n, object) in touches.iter().enumerate() {
        if there[*object].is_none() {
            if held == room {
                let used = |o: &usize| there[*o].unwrap_or(0);
                let farthest = (0..objects)
                    .filter(|o| there[*o].is_some())
                    .max_by_key(used);
                if let Some(farthest) = farthest {
                    there[farthest] = None;
                    left += 1;
                    held -= 1;
                }
            }
            came += 1;
            held += 1;
        }
        there[*object] = Some(next[n]);
    }
    (came, left)
}

/// For each touch, when its object is touched next; the end of the list if never.
fn next_uses(touches: &[usize], objects: usize) -> Vec<usize> {
    let mut later = vec![usize::MAX; objects];
    let mut next = vec![usize::MAX; touches.len()];
    for (n, object) in touches.iter().enumerate().rev() {
        next[n] = std::mem::replace(&mut later[*object], n);
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least that come, by trying every choice of who leaves.
    fn tried(touches: &[usize], room: usize, there: &[usize]) -> u64 {
        let Some((object, rest)) = touches.split_first() else {
            return 0;
        };
        if there.contains(object) {
            return tried(rest, room, there);
        }
        let with = |others: Vec<usize>| tried(rest, room, &[others, vec![*object]].concat());
        let without = |n: usize| {
            let mut others = there.to_vec();
            others.remove(n);
            with(others)
        };
        1 + match there.len() < room {
            true => with(there.to_vec()),
            false => (0..there.len()).map(without).min().expect("room for one"),
        }
    }

    #[test]
    fn nobody_who_tries_everything_does_better() {
        let circle: Vec<usize> = (0..3).flat_map(|_| 0..5).collect();
        let mixed = vec![0, 1, 2, 0, 3, 1, 4, 0, 2, 2, 3, 1, 0, 4];
        for touches in [circle, mixed] {
            for room in 1..=4 {
                let (came, left) = least_moves(&touches, room);
                assert_eq!(came, tried(&touches, room, &[]), "room for {room}");
                assert_eq!(came - left, room as u64);
            }
        }
    }

    #[test]
    fn back_and_forth_what_came_last_is_there_first() {
        let there_and_back: Vec<usize> = (0..8).chain((0..8).rev()).collect();
        assert_eq!(least_moves(&there_and_back, 4), (8 + 4, 8));
    }
}
