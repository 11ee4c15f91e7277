//! The order in which the documents of one set are sampled.

use std::collections::{HashMap, HashSet, VecDeque};

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// An endless stream of the indices of one set; each epoch contains each index once.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    /// The subject of each document.
    pub(super) subjects: Vec<Option<String>>,
    pub(super) generator: ChaCha8Rng,
    pub(super) left: Left,
}

impl Stream {
    pub(super) fn new(subjects: Vec<Option<String>>, generator: ChaCha8Rng) -> Self {
        Self { subjects, generator, left: Left::default() }
    }

    /// The next `count` indices, or all of them if there are no more. Prefers documents about the subjects in
    /// `wanted`, in turn, as long as the epoch has any left, and then follows the epoch's order.
    pub(super) fn draw(&mut self, count: usize, wanted: &[String]) -> Vec<usize> {
        if count >= self.subjects.len() {
            return (0..self.subjects.len()).collect();
        }
        let mut drawn = Vec::with_capacity(count);
        let mut is_drawn = HashSet::with_capacity(count);
        let mut turn = 0;
        while drawn.len() < count {
            if self.left.is_empty() {
                self.refill(&is_drawn);
            }
            let found = (turn..turn + wanted.len()).find_map(|turn| {
                let index = self.left.take_of(&wanted[turn % wanted.len()], &is_drawn)?;
                Some((turn + 1, index))
            });
            let (next, index) = match found {
                Some((next, index)) => (next, Some(index)),
                None => (turn, self.left.take_first()),
            };
            turn = next;
            drawn.extend(index);
            is_drawn.extend(index);
        }
        drawn
    }

    /// Starts an epoch. Its order consists of rounds with one document of each subject, so that several wordings of a
    /// subject are far apart; documents without a subject are spread evenly in between. Documents that the current
    /// step has drawn already come last.
    fn refill(&mut self, drawn: &HashSet<usize>) {
        let mut order: Vec<usize> = (0..self.subjects.len()).collect();
        order.shuffle(&mut self.generator);
        let mut rounds: HashMap<&str, usize> = HashMap::new();
        let (mut with_subject, mut others) = (Vec::new(), Vec::new());
        for index in order {
            match &self.subjects[index] {
                Some(subject) => {
                    let round = rounds.entry(subject).or_default();
                    with_subject.push((*round, index));
                    *round += 1;
                }
                None => others.push((0, index)),
            }
        }
        with_subject.sort_by_key(|&(round, _)| round);
        let spread = |part: Vec<(usize, usize)>| {
            let count = part.len() as f64;
            let places = part.into_iter().enumerate();
            places.map(move |(place, (_, index))| ((place as f64 + 0.5) / count, index))
        };
        let mut keyed: Vec<(f64, usize)> = spread(with_subject).chain(spread(others)).collect();
        keyed.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let (last, first): (Vec<usize>, Vec<usize>) =
            keyed.into_iter().map(|(_, index)| index).partition(|index| drawn.contains(index));
        self.left = Left::new(first.into_iter().chain(last), &self.subjects);
    }
}

/// The indices left in an epoch, in order. Taking the first one, or the first one of a subject, takes constant time.
#[derive(Debug, Clone, Default)]
pub(super) struct Left {
    /// The epoch's order; `None` for indices already taken.
    order: Vec<Option<usize>>,
    /// No index is left before this place.
    first: usize,
    /// Number of indices left.
    count: usize,
    /// The places in `order` of each subject's documents, in order. Those at the front may be taken already.
    places: HashMap<String, VecDeque<usize>>,
}

impl Left {
    pub(super) fn new(order: impl IntoIterator<Item = usize>, subjects: &[Option<String>]) -> Self {
        let order: Vec<Option<usize>> = order.into_iter().map(Some).collect();
        let mut places: HashMap<String, VecDeque<usize>> = HashMap::new();
        for (place, index) in order.iter().enumerate() {
            if let Some(subject) = index.and_then(|index| subjects[index].as_ref()) {
                // Most subjects have several documents, so copy the name once only.
                match places.get_mut(subject) {
                    Some(places) => places.push_back(place),
                    None => drop(places.insert(subject.clone(), VecDeque::from([place]))),
                }
            }
        }
        Self { count: order.len(), order, first: 0, places }
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The indices left, in order.
    pub(super) fn indices(&self) -> impl Iterator<Item = usize> {
        self.order[self.first..].iter().flatten().copied()
    }

    /// Takes the first index; `None` if none is left.
    fn take_first(&mut self) -> Option<usize> {
        let place = (self.first..self.order.len()).find(|&place| self.order[place].is_some())?;
        self.first = place + 1;
        self.take(place)
    }

    /// Takes the first index of `subject` that is not in `drawn`, if any.
    fn take_of(&mut self, subject: &str, drawn: &HashSet<usize>) -> Option<usize> {
        let Self { order, places, .. } = self;
        let places = places.get_mut(subject)?;
        while places.front().is_some_and(|&place| order[place].is_none()) {
            places.pop_front();
        }
        let is_next = |&&place: &&usize| order[place].is_some_and(|index| !drawn.contains(&index));
        let place = *places.iter().find(is_next)?;
        self.take(place)
    }

    fn take(&mut self, place: usize) -> Option<usize> {
        let index = self.order[place].take();
        self.count -= usize::from(index.is_some());
        index
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use crate::data::seeded;

    /// A plain implementation of `draw`: a search through all that is left for each document.
    fn draw_plainly(
        stream: &mut Stream,
        left: &mut Vec<usize>,
        count: usize,
        wanted: &[String],
    ) -> Vec<usize> {
        let mut drawn = Vec::new();
        let mut turn = 0;
        while drawn.len() < count {
            if left.is_empty() {
                stream.refill(&drawn.iter().copied().collect());
                *left = stream.left.indices().collect();
            }
            let found = (turn..turn + wanted.len()).find_map(|turn| {
                let subject = &wanted[turn % wanted.len()];
                let is_next = |&index: &usize| {
                    stream.subjects[index].as_ref() == Some(subject) && !drawn.contains(&index)
                };
                Some((turn + 1, left.iter().position(is_next)?))
            });
            let (next, position) = found.unwrap_or((turn, 0));
            turn = next;
            drawn.push(left.remove(position));
        }
        drawn
    }

    #[test]
    fn draws_equal_those_of_the_plain_implementation() {
        let mut random = seeded(3, 0);
        for seed in 0..60 {
            let documents = random.random_range(2..40);
            let names = random.random_range(1..12);
            let mut name = |one_in: u32| {
                let name = format!("s{}", random.random_range(0..names));
                (random.random_range(0..4) < one_in).then_some(name)
            };
            let subjects: Vec<Option<String>> = (0..documents).map(|_| name(3)).collect();
            let wanted: Vec<Vec<String>> =
                (0..200).map(|_| (0..5).filter_map(|_| name(2)).collect()).collect();
            let mut fast = Stream::new(subjects.clone(), seeded(seed, 1));
            let mut plain = Stream::new(subjects, seeded(seed, 1));
            let mut left = Vec::new();
            let count = 1 + seed as usize % (documents - 1);
            for wanted in &wanted {
                assert_eq!(fast.draw(count, wanted), draw_plainly(&mut plain, &mut left, count, wanted));
                assert_eq!(fast.left.indices().collect::<Vec<_>>(), left);
            }
        }
    }

    #[test]
    fn the_time_of_a_draw_does_not_depend_on_the_number_of_subjects() {
        let documents = 200_000;
        let subjects = (0..documents).map(|index| Some(format!("s{}", index / 2))).collect();
        let mut stream = Stream::new(subjects, seeded(1, 1));
        let wanted = |step: usize| -> Vec<String> {
            (0..4).map(|number| format!("s{}", (step * 4 + number) * 7919 % (documents / 2))).collect()
        };
        let mut seen = HashSet::new();
        // A search through all that is left would take 0.1 s a step, half an hour in total.
        for step in 0..documents / 10 {
            seen.extend(stream.draw(10, &wanted(step)));
        }
        assert_eq!(seen.len(), documents);
    }
}
