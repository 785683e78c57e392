use proptest::prelude::*;

use super::*;

const STUCK_MAX: Duration = Duration::from_secs(60);

fn config() -> NetConfig {
    NetConfig { incarnation: 3, ..NetConfig::new(0x0c, NodeId(2)) }
}

/// What node 1 would say to node 2.
fn hello() -> Hello {
    let config = NetConfig { incarnation: 9, life: Life(7), ..NetConfig::new(0x0c, NodeId(1)) };
    Hello::new(&config, NodeId(2), Purpose::Messages)
}

async fn written(hello: &Hello) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_hello(&mut bytes, hello, STUCK_MAX).await.expect("memory");
    bytes
}

async fn read(mut bytes: &[u8]) -> Result<Opening, String> {
    read_opening(&mut bytes).await.map_err(|error| match error {
        OpeningError::Bad(reason) => format!("{reason:?}"),
        OpeningError::Http(_) => "Http".into(),
        OpeningError::Lost(_) => "lost".into(),
    })
}

/// Written down once; a change here is a change of the protocol.
#[tokio::test]
async fn h137_bytes_of_an_opening() {
    let bytes = written(&hello()).await;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let want = [
        "d171756f72617465", // magic
        "6dbec8fb",         // checksum
        "3c000000",         // length
        "01",               // a hello
        "02000200",         // versions 2 to 2
        "01000000",         // for messages
        "0c00000000000000", // cluster
        "0100000000000000", // from
        "0200000000000000", // to
        "0900000000000000", // incarnation
        "00000001",         // longest frame: 16 MiB
        "0000000000010000", // longest snapshot: 1 TiB
        "0700000000000000", // life
    ];
    assert_eq!(hex, want.concat());

    let mut refused = Vec::new();
    write_refusal(&mut refused, Refusal::WrongVersion, STUCK_MAX).await.expect("memory");
    let hex: String = refused.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, ["d171756f72617465", "2c00dd6a", "02000000", "02", "0400"].concat());
}

#[tokio::test]
async fn openings_come_back_as_they_went() {
    let mut all = hello();
    all.purpose = Purpose::Snapshot;
    for hello in [hello(), all] {
        assert_eq!(read(&written(&hello).await).await, Ok(Opening::Hello(hello)));
    }
    for code in 0..20 {
        let mut bytes = Vec::new();
        write_refusal(&mut bytes, refusal(code), STUCK_MAX).await.expect("memory");
        assert_eq!(read(&bytes).await, Ok(Opening::Refused(refusal(code))));
        assert_eq!(refusal_code(refusal(code)), code);
    }
}

#[tokio::test]
async fn what_later_versions_append_is_ignored() {
    let mut bytes = BytesMut::from(&MAGIC[..]);
    let mut payload = hello().encode().to_vec();
    payload.extend_from_slice(b"and more");
    put(&mut bytes, Kind::Hello, &payload);
    assert_eq!(read(&bytes).await, Ok(Opening::Hello(hello())));
}

#[tokio::test]
async fn a_hello_from_before_lives_has_none() {
    let mut bytes = BytesMut::from(&MAGIC[..]);
    put(&mut bytes, Kind::Hello, &hello().encode()[..HELLO_BYTES_MIN]);
    let want = Hello { life: Life::NONE, ..hello() };
    assert_eq!(read(&bytes).await, Ok(Opening::Hello(want)));
}

#[tokio::test]
async fn strangers_are_told_apart_by_their_first_bytes() {
    let good = written(&hello()).await;
    let opening = |kind, payload: &[u8]| {
        let mut bytes = BytesMut::from(&MAGIC[..]);
        put(&mut bytes, kind, payload);
        bytes.to_vec()
    };
    let mut flipped = good.clone();
    flipped[30] ^= 1;
    let mut unknown_kind = good.clone();
    unknown_kind[16] = 77;
    let mut purpose = hello().encode();
    purpose[4] = 9;
    for (bytes, want) in [
        (&b""[..], "lost"),
        (&good[..1], "lost"),
        (&good[..8], "lost"),
        (&good[..76], "lost"),
        (b"GET / HTTP/1.1\r\n\r\n", "Http"),
        (b"Q", "Http"),
        (&[0x16, 3, 1, 2, 0, 1], "Tls"),
        (&[0; 8], "Garbage"),
        (&[0xd1, b'q', b'u', b'i'], "Garbage"), // at the first byte that is wrong
        (&flipped, "BadHello"),
        (&unknown_kind, "BadHello"),
        (&opening(Kind::Message, &hello().encode()), "BadHello"),
        (&opening(Kind::Hello, &hello().encode()[..51]), "BadHello"),
        (&opening(Kind::Hello, &purpose), "BadHello"),
        (&opening(Kind::Hello, &[0; 257]), "BadHello"),
        (&opening(Kind::Refused, &[1]), "BadHello"),
    ] {
        assert_eq!(read(bytes).await, Err(want.into()), "{bytes:?}");
    }
}

#[test]
fn h129_hellos_for_someone_else_are_refused() {
    type Change = fn(&mut Hello);
    for (change, want) in [
        ((|_| {}) as Change, Ok(())),
        (|h| h.cluster = 0x0d, Err(Refusal::WrongCluster)),
        (|h| h.to = NodeId(3), Err(Refusal::WrongReceiver)),
        (|h| h.to = NodeId::NONE, Err(Refusal::WrongReceiver)),
        (|h| h.from = NodeId::NONE, Err(Refusal::WrongSender)),
        (|h| h.from = NodeId(2), Err(Refusal::WrongSender)),
        (|h| (h.version_min, h.version_max) = (3, 9), Err(Refusal::WrongVersion)),
        // It could not read all that is in the log.
        (|h| (h.version_min, h.version_max) = (1, 1), Err(Refusal::WrongVersion)),
        (|h| (h.version_min, h.version_max) = (0, 2), Ok(())),
        (|h| (h.version_min, h.version_max) = (1, 9), Ok(())),
        (|h| h.version_min = 9, Err(Refusal::WrongVersion)), // the wrong way round
        (|h| h.dialect = 1, Err(Refusal::OtherDialect)),
    ] {
        let mut hello = hello();
        change(&mut hello);
        assert_eq!(hello.judge(&config()), want, "{hello:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_an_opening_or_none(bytes: Vec<u8>, with_magic: bool) {
        let mut all = if with_magic { MAGIC.to_vec() } else { Vec::new() };
        all.extend_from_slice(&bytes);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let _ = runtime.block_on(read_opening(&mut &all[..]));
    }

    #[test]
    fn any_payload_is_a_hello_or_none(bytes: Vec<u8>) {
        if let Some(hello) = Hello::decode(&bytes) {
            let again = Hello::decode(&hello.encode());
            prop_assert_eq!(again, Some(hello));
            let _ = hello.judge(&config());
        }
    }
}
