//! stub
use bytes::BytesMut;
/// x
#[derive(Debug)]
pub struct TunOptions {
    /// x
    pub name: Option<String>,
    /// x
    pub queues: usize,
    /// x
    pub offload: bool,
    /// x
    pub mtu: Option<u16>,
}
/// x
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct TunError;
/// x
#[derive(Debug)]
pub struct TunQueue;
/// x
#[derive(Debug)]
pub struct Tun {
    /// x
    pub name: String,
    /// x
    pub index: u32,
    /// x
    pub queues: Vec<TunQueue>,
}
impl Tun {
    /// x
    pub fn open(_: &TunOptions) -> Result<Self, TunError> {
        Err(TunError)
    }
}
/// x
#[derive(Debug)]
pub struct Packets(Vec<BytesMut>);
impl IntoIterator for Packets {
    type Item = BytesMut;
    type IntoIter = std::vec::IntoIter<BytesMut>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
impl super::Driver {
    /// x
    pub fn add_tun(&mut self, _: TunQueue, _: u64) -> std::io::Result<super::SocketId> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}
