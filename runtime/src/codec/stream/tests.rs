//! The two ends of a lane against each other, and the reader against what no writer of ours sends.

use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

type Pair = (Arc<str>, Pid);
/// Writes what ends a run.
type End<'a> = &'a dyn Fn(&mut Writer, &mut Vec<u8>);

const LIMIT: usize = 4 << 20;
const MESSAGE: Class = Class::Message {
    kind: Kind(7),
    correlation: Correlation::Request(300),
};

fn pair(to: &str, from: &str) -> Pair {
    (
        Arc::from(to),
        format!("{from}@127.0.0.1:5050").parse().unwrap(),
    )
}

fn write(writer: &mut Writer, class: Class, pair: &Pair, body: &[u8], out: &mut Vec<u8>) {
    writer
        .header(class, &pair.0, &pair.1, body.len(), out)
        .unwrap();
    out.extend_from_slice(body);
}

fn reader() -> Reader<Pair> {
    Reader::new(LIMIT)
}

/// Everything that `bytes` hold when they come in pieces of `size`.
fn read_all(
    reader: &mut Reader<Pair>,
    bytes: &[u8],
    size: usize,
) -> Result<Vec<(Class, Pair, Vec<u8>)>, CodecError> {
    let mut all = Vec::new();
    for piece in bytes.chunks(size) {
        let mut input = Bytes::copy_from_slice(piece);
        loop {
            if let Some((pair, run)) = reader.run(&mut input) {
                all.extend(run.map(|(class, body)| (class, pair.clone(), body.to_vec())));
                continue;
            }
            match reader.next(&mut input, |to, from| Ok::<_, Infallible>((to, from))) {
                Ok(Some(arrived)) => {
                    all.push((arrived.class, arrived.route.clone(), arrived.body.to_vec()));
                }
                Ok(None) => break,
                Err(ReadError::Codec(error)) => return Err(error),
                Err(ReadError::Route(never)) => match never {},
            }
        }
        assert!(input.is_empty());
    }
    Ok(all)
}

#[test]
fn a_body_keeps_at_most_eight_times_its_size_in_memory() {
    let pair = pair("slave(1)", "master");
    let body_in = |buffer: usize, length: usize| {
        let mut bytes = Vec::new();
        write(
            &mut Writer::default(),
            MESSAGE,
            &pair,
            &vec![7; length],
            &mut bytes,
        );
        let before = bytes.len();
        bytes.resize(buffer, 0);
        let whole = Bytes::from(bytes);
        let (begin, end) = (whole.as_ptr() as usize, whole.as_ptr() as usize + buffer);
        let mut reader = reader();
        reader.within(buffer);
        let mut input = whole.slice(..before);
        let named = |to, from| Ok::<_, Infallible>((to, from));
        let Ok(Some(arrived)) = reader.next(&mut input, named) else {
            panic!("a whole frame");
        };
        assert_eq!(arrived.body, vec![7; length]);
        // Whether it is a part of what was read.
        (begin..end).contains(&(arrived.body.as_ptr() as usize))
    };
    let large = 256 << 10;
    assert!(!body_in(large, 5 << 10));
    assert!(!body_in(large, (large / 8) - 100));
    assert!(body_in(large, large / 8));
    assert!(body_in(8 << 10, 5 << 10));
    assert!(!body_in(8 << 10, 1 << 10));
}

#[test]
fn a_run_has_what_is_small_and_whole_on_one_route_and_leaves_the_rest() {
    let (mut writer, mut reader) = (Writer::default(), reader());
    let (one, other) = (pair("to", "from"), pair("other", "from"));
    let mut named = Vec::new();
    write(&mut writer, MESSAGE, &one, b"a", &mut named);
    write(&mut writer, MESSAGE, &other, b"b", &mut named);
    let mut input = Bytes::from(named);
    assert!(reader.run(&mut input).is_none(), "they are named first");
    let mut rest = input.clone();
    for _ in 0..2 {
        let named = reader.next(&mut rest, |to, from| Ok::<_, Infallible>((to, from)));
        assert!(matches!(named, Ok(Some(_))));
    }

    let bodies = [[1; 20], [2; 20], [3; 20]];
    let ends: [End<'_>; 4] = [
        &|writer, out| write(writer, MESSAGE, &other, b"b", out),
        &|writer, out| write(writer, MESSAGE, &one, &[0; SLICE_FROM], out),
        &|writer, out| write(writer, Class::Link, &one, b"", out),
        &|writer, out| {
            write(writer, MESSAGE, &one, b"cut", out);
            out.pop();
        },
    ];
    for end in ends {
        let mut bytes = Vec::new();
        for body in bodies {
            write(&mut writer, MESSAGE, &one, &body, &mut bytes);
        }
        let before = bytes.len();
        end(&mut writer, &mut bytes);
        let left = bytes.len() - before;
        let mut input = Bytes::from(bytes);
        let (route, run) = reader.run(&mut input).unwrap();
        assert_eq!(*route, one);
        let all: Vec<_> = run.collect();
        assert_eq!(
            all,
            bodies.map(|body| (MESSAGE, Bytes::copy_from_slice(&body)))
        );
        assert_eq!(input.len(), left);
    }
}

#[test]
fn a_body_of_a_run_keeps_at_most_eight_times_its_size_in_memory() {
    let (mut writer, mut reader) = (Writer::default(), reader());
    let one = pair("to", "from");
    let mut bytes = Vec::new();
    for n in 0..50 {
        write(&mut writer, MESSAGE, &one, &[n; 20], &mut bytes);
    }
    let mut input = Bytes::from(bytes);
    let named = reader.next(&mut input, |to, from| Ok::<_, Infallible>((to, from)));
    assert!(matches!(named, Ok(Some(_))));
    let mut came = 1;
    while let Some((_, run)) = reader.run(&mut input) {
        let bodies: Vec<Bytes> = run.map(|(_, body)| body).collect();
        for body in &bodies {
            assert_eq!(**body, [came; 20]);
            came += 1;
        }
        let (first, last) = (bodies[0].as_ptr(), bodies[bodies.len() - 1].as_ptr());
        assert!((last as usize).abs_diff(first as usize) + 20 <= 8 * 20);
    }
    assert_eq!((came, input.len()), (50, 0));
}

#[test]
fn a_pair_is_named_once_and_then_a_number() {
    let mut writer = Writer::default();
    let (a, b) = (pair("slave(1)", "master"), pair("master", "slave(1)"));
    let mut lengths = Vec::new();
    let mut bytes = Vec::new();
    for pair in [&a, &a, &b, &a, &b] {
        let before = bytes.len();
        write(&mut writer, MESSAGE, pair, b"body", &mut bytes);
        lengths.push(bytes.len() - before);
    }
    // Length, tag, route, kind, two bytes of the request's number, body.
    let short = 4 + 1 + 1 + 4 + 2 + 4;
    assert_eq!(
        [lengths[1], lengths[3], lengths[4]],
        [short, short, short],
        "{lengths:?}"
    );
    assert_eq!(writer.defined(), 2);
    let read = read_all(&mut reader(), &bytes, 3).unwrap();
    let pairs: Vec<_> = read.into_iter().map(|(_, pair, _)| pair).collect();
    assert_eq!(pairs, [a.clone(), a.clone(), b.clone(), a, b]);
}

#[test]
fn more_pairs_than_the_table_holds_are_named_anew_and_neither_end_grows() {
    let mut writer = Writer::default();
    let mut reader = reader();
    let pairs: Vec<Pair> = (0..MAX_ROUTES + 100)
        .map(|n| pair(&format!("to({n})"), "from"))
        .collect();
    for _ in 0..2 {
        let mut bytes = Vec::new();
        for pair in &pairs {
            write(&mut writer, Class::Link, pair, b"", &mut bytes);
        }
        let read = read_all(&mut reader, &bytes, 1000).unwrap();
        let back: Vec<Pair> = read.into_iter().map(|(_, pair, _)| pair).collect();
        assert_eq!(back, pairs);
    }
    assert_eq!(writer.routes.len(), MAX_ROUTES);
    assert!(writer.numbers.len() <= MAX_ROUTES);
    assert_eq!(reader.routes.len(), MAX_ROUTES);
}

#[test]
fn a_pair_with_a_long_text_is_named_each_time() {
    let mut writer = Writer::default();
    let mut reader = reader();
    let long = pair(&"x".repeat(MAX_ROUTE_TEXT), "from");
    let mut bytes = Vec::new();
    for _ in 0..2 {
        write(&mut writer, Class::Link, &long, b"", &mut bytes);
    }
    assert_eq!(read_all(&mut reader, &bytes, 100).unwrap().len(), 2);
    assert!(writer.routes.is_empty() && reader.routes.is_empty());
}

#[test]
fn a_large_body_comes_in_parts_between_which_others_pass() {
    let mut writer = Writer::default();
    let mut reader = reader();
    let (large, small) = (pair("large", "a"), pair("small", "b"));
    let body: Vec<u8> = (0..2 * PART + 10).map(|n| n.to_le_bytes()[0]).collect();
    let mut bytes = Vec::new();
    let message = (Kind(7), Correlation::None);
    for (n, part) in body.chunks(PART).enumerate() {
        let lengths = (n * PART, part.len(), body.len());
        writer.part_header(message, &large.0, &large.1, lengths, &mut bytes);
        bytes.extend_from_slice(part);
        write(&mut writer, MESSAGE, &small, &[1], &mut bytes);
    }
    let read = read_all(&mut reader, &bytes, 7000).unwrap();
    let order: Vec<_> = read.iter().map(|(_, pair, _)| &*pair.0).collect();
    assert_eq!(order, ["small", "small", "large", "small"]);
    assert_eq!(read[2].2, body);
    assert!(reader.is_at_rest());
}

#[test]
fn what_is_announced_is_checked_before_anything_is_allocated_for_it() {
    let mut writer = Writer::default();
    let one = pair("to", "from");
    let message = (Kind(7), Correlation::None);
    let mut over = Vec::new();
    writer.part_header(message, &one.0, &one.1, (0, 1, LIMIT + 1), &mut over);
    over.push(0);
    assert!(matches!(
        read_all(&mut reader(), &over, 100),
        Err(CodecError::TooLarge { .. })
    ));

    let mut first = Vec::new();
    let mut patient = reader();
    Writer::default().part_header(message, &one.0, &one.1, (0, 1, LIMIT), &mut first);
    first.push(0);
    assert_eq!(read_all(&mut patient, &first, 100).unwrap(), []);
    assert!(patient.assembling() <= 2);

    let mut refused = Vec::new();
    let whole = writer.header(MESSAGE, &one.0, &one.1, MAX_WHOLE + 1, &mut refused);
    assert!(matches!(whole, Err(CodecError::TooLarge { .. })));
    assert!(refused.is_empty());
}

#[test]
fn what_no_writer_sends_is_refused() {
    let one = pair("to", "from");
    let message = (Kind(7), Correlation::None);
    let frame = |fill: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        fill(&mut bytes);
        bytes
    };
    let raw = |body: &[u8]| {
        let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(body);
        bytes
    };
    let part = |bytes: &mut Vec<u8>, sent| {
        Writer::default().part_header(message, &one.0, &one.1, (sent, 1, 10), bytes);
        bytes.push(0);
    };
    let wrong = [
        ("no tag", raw(&[])),
        ("an unknown route", raw(&[CLASS_LINK | ROUTE_KNOWN << 5, 3])),
        ("a route out of turn", raw(b"\x41\x05\x01a\x05b@c:1")),
        ("a flag of a later version", raw(&[0x80])),
        ("a part of no message", frame(&|b| part(b, 1))),
        (
            "a message in parts within another",
            frame(&|b| {
                part(b, 0);
                part(b, 0);
            }),
        ),
        ("a varint without an end", raw(&[0x21; 20])),
        ("a text longer than its frame", raw(&[CLASS_LINK, 200, 1])),
    ];
    for (what, bytes) in wrong {
        assert!(read_all(&mut reader(), &bytes, 1000).is_err(), "{what}");
    }
}

#[test]
fn a_refused_pair_ends_the_lane() {
    let mut bytes = Vec::new();
    let one = pair("to", "from");
    write(&mut Writer::default(), Class::Link, &one, b"", &mut bytes);
    let mut reader = Reader::<()>::new(LIMIT);
    let refused = reader.next(&mut Bytes::from(bytes), |_, _| Err("not its own"));
    assert!(matches!(refused, Err(ReadError::Route("not its own"))));
}

proptest! {
    #[test]
    fn whatever_is_written_is_read_however_it_is_cut(
        frames in proptest::collection::vec((0_usize..6, 0_usize..5000, any::<u64>()), 1..30),
        size in 1_usize..6000,
    ) {
        let mut writer = Writer::default();
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for (who, length, number) in frames {
            let pair = pair(&format!("to({who})"), &format!("from({})", who % 2));
            let class = match who {
                0 => Class::Link,
                1 => Class::Exited,
                _ => Class::Message { kind: Kind(3), correlation: Correlation::Answer(number) },
            };
            let body = vec![number.to_le_bytes()[0]; length];
            write(&mut writer, class, &pair, &body, &mut bytes);
            expected.push((class, pair, body));
        }
        prop_assert_eq!(read_all(&mut reader(), &bytes, size).unwrap(), expected);
    }

    #[test]
    fn random_bytes_are_an_error_or_incomplete_and_take_no_more_room_than_they_are(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        size in 1_usize..100,
    ) {
        let mut reader = reader();
        let _outcome = read_all(&mut reader, &bytes, size);
        prop_assert!(reader.assembling() <= 2 * bytes.len() + 16);
        prop_assert!(reader.routes.len() <= bytes.len());
    }
}
