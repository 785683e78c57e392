//! Streams that end well only on their sender's word. Where the word travelled among the answers, there
//! would be no room for it while the client takes nothing, and the stream would end as if it were complete.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use quorate_kv::KvError;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tonic::Status;

use crate::status;

/// Answers on their way to a client, and how they end after the last of them.
pub(super) struct Ended<T> {
    answers: mpsc::Receiver<T>,
    word: Option<Word>,
}

/// Nothing, or why the client does not get all that it asked for.
type Word = oneshot::Receiver<Result<(), Status>>;

impl<T> Ended<T> {
    /// For so many answers between sender and connection: where they go in, where their end does, and
    /// what the client is given.
    pub(super) fn channel(
        answers_max: usize,
    ) -> (mpsc::Sender<T>, oneshot::Sender<Result<(), Status>>, Ended<T>) {
        let (answers_in, answers) = mpsc::channel(answers_max);
        let (word_in, word) = oneshot::channel();
        (answers_in, word_in, Ended { answers, word: Some(word) })
    }
}

impl<T> Stream for Ended<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(answer) = ready!(self.answers.poll_recv(context)) {
            return Poll::Ready(Some(Ok(answer)));
        }
        let Some(word) = &mut self.word else { return Poll::Ready(None) };
        let word = ready!(Pin::new(word).poll(context));
        self.word = None;
        // Without one the sender has come to a bad end.
        let word = word.unwrap_or_else(|_| Err(status::of_kv(KvError::Stopped)));
        Poll::Ready(word.err().map(Err))
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_stream_ends_well_only_on_its_senders_word() {
        let no_leader = || Err(status::of_kv(KvError::NoLeader));
        for (said, want) in [
            (Some(Ok(())), None),
            (Some(no_leader()), Some(KvError::NoLeader)),
            (None, Some(KvError::Stopped)),
        ] {
            // As full as it gets.
            let (answers, word, mut stream) = Ended::channel(2);
            answers.try_send(1).unwrap();
            answers.try_send(0).unwrap();
            drop(answers);
            match said {
                Some(said) => word.send(said).unwrap(),
                None => drop(word),
            }
            for number in [1, 0] {
                assert_eq!(stream.next().await.unwrap().unwrap(), number);
            }
            let end = stream.next().await.map(|end| end.unwrap_err().message().to_owned());
            assert_eq!(end, want.map(|error| error.message().to_owned()));
            assert!(stream.next().await.is_none());
        }
    }
}
